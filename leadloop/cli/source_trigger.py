"""`leadloop source-trigger`: SQL for psql; it changes nothing in the database."""

from collections.abc import Sequence
from typing import TextIO

from db.campaigns import select_campaigns
from db.database import Database
from db.source_triggers import TriggerTable, find_trigger_table, render_trigger
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError, UsageError
from leadloop.core.escaping import escape_unprintable
from leadloop.core.source_requirements import (
    NamedSource,
    SourceError,
    find_lead_source,
    find_opt_out_source,
)
from leadloop.settings import Settings
from tasks.source_sync import open_source_database


def print_source_triggers(
    database: Database,
    settings: Settings,
    campaign_ids: Sequence[str],
    table: str | None,
    out: TextIO,
) -> None:
    """Print the SQL of the trigger of each source and opt-out source, or of one table.

    Args:
        database: where the campaigns are.
        settings: the login that reads sources.
        campaign_ids: none: every enabled campaign.
        table: the table's name with its schema; None: the campaigns' sources.
        out: where the SQL is printed.

    Raises:
        UsageError: no campaign has a source or an opt-out source, or a campaign is unknown.
        RunError: a source cannot have such a trigger; the SQL of the others was printed.
    """
    if table is not None:
        with open_source_database(settings, database) as reader:
            out.write(render_trigger(find_trigger_table(reader, table)))
        return
    chosen = database.run(select_campaigns, campaign_ids, settings.campaign_rules())
    sources: list[tuple[Campaign, NamedSource]] = [
        (campaign, named)
        for campaign in chosen
        for named in (find_lead_source(campaign), find_opt_out_source(campaign))
        if named is not None
    ]
    if not sources:
        raise UsageError(
            "no campaign has a source: set `source` or `opt_out_source` in leadloop.campaigns, or"
            " name a table with --table"
        )
    with open_source_database(settings, database) as reader:
        found, failures = _find_tables(reader, sources)
    out.write("\n".join(render_trigger(each, ids) for each, ids in found.items()))
    if failures:
        raise RunError("; ".join(failures))


def _find_tables(
    reader: Database, sources: Sequence[tuple[Campaign, NamedSource]]
) -> tuple[dict[TriggerTable, list[str]], list[str]]:
    """Return the tables with the ids of their campaigns, and why other sources have no trigger."""
    found: dict[TriggerTable, list[str]] = {}
    failures: list[str] = []
    for campaign, named in sources:
        try:
            table = find_trigger_table(reader, named.name)
        except SourceError as error:
            failures.append(f"campaign {campaign.campaign_id}: the {named.noun} {error}")
        else:
            found.setdefault(table, []).append(escape_unprintable(campaign.campaign_id))
    return found, failures
