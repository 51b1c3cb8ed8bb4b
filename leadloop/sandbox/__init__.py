"""A stand-in of the vendor's Leads API, built from the vendor's document alone.

The sandbox shares no code with the rest of the project, so that a misreading of the document on
one side is not repeated on the other.

`server` serves; `asgi_app` takes a request through the log, the rate limit, faults and a handler of
`routes`; `admin_routes` has the endpoints for tests and scripts. `rules` has every setting,
`openapi.json` describes the API.
"""

from leadloop.sandbox.faults import Fault
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.server import Handle, running, serve

__all__ = ["Fault", "Handle", "Rules", "running", "serve"]
