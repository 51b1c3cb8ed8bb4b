"""`leadloop source-trigger`: SQL for psql; it changes nothing in the database."""

from collections.abc import Sequence
from typing import TextIO

from db.campaigns import select_campaigns
from db.database import Database
from db.source_triggers import TriggerTable, find_trigger_table, render_trigger
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError, UsageError
from leadloop.core.escaping import escape_unprintable
from leadloop.core.source_requirements import SourceError
from leadloop.settings import Settings
from tasks.source_sync import open_source_database


def print_source_triggers(
    database: Database,
    settings: Settings,
    campaign_ids: Sequence[str],
    table: str | None,
    out: TextIO,
) -> None:
    """Print the SQL of the trigger of each source, or of one table.

    Args:
        database: where the campaigns are.
        settings: the login that reads sources.
        campaign_ids: none: every enabled campaign.
        table: the table's name with its schema; None: the campaigns' sources.
        out: where the SQL is printed.

    Raises:
        UsageError: no campaign has a source, or a campaign is unknown.
        RunError: a source cannot have such a trigger; the SQL of the others was printed.
    """
    if table is not None:
        with open_source_database(settings, database) as reader:
            out.write(render_trigger(find_trigger_table(reader, table)))
        return
    chosen = database.run(select_campaigns, campaign_ids, settings.campaign_rules())
    with_sources = [campaign for campaign in chosen if campaign.source is not None]
    if not with_sources:
        raise UsageError(
            "no campaign has a source: set `source` in leadloop.campaigns, or name a table with"
            " --table"
        )
    with open_source_database(settings, database) as reader:
        found, failures = _find_tables(reader, with_sources)
    out.write("\n".join(render_trigger(each, ids) for each, ids in found.items()))
    if failures:
        raise RunError("; ".join(failures))


def _find_tables(
    reader: Database, campaigns: Sequence[Campaign]
) -> tuple[dict[TriggerTable, list[str]], list[str]]:
    """Return the tables with the ids of their campaigns, and why other sources have no trigger."""
    found: dict[TriggerTable, list[str]] = {}
    failures: list[str] = []
    for campaign in campaigns:
        assert campaign.source is not None, "the caller passes only campaigns that have one"
        try:
            table = find_trigger_table(reader, campaign.source)
        except SourceError as error:
            failures.append(f"campaign {campaign.campaign_id}: the source {error}")
        else:
            found.setdefault(table, []).append(escape_unprintable(campaign.campaign_id))
    return found, failures
