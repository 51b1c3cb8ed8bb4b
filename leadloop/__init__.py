"""Sends leads from Postgres to the vendor's Leads API, and brings outcomes back.

The packages here have two storeys, with `db` and `tasks` between them:

    cli, monitor, local                 above: commands, the page, servers that local runs start
    flows -> tasks -> db                (top-level packages)
    client, settings, core              below: the API client, the settings, rules without I/O

`sandbox` stands apart: a stand-in of the vendor's API that shares no code with the rest.
"""

__version__ = "0.2.0"
