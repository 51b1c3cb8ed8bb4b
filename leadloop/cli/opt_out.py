"""`leadloop opt-out`: opts leads out by a person's word; asks before many do."""

import sys
from collections.abc import Iterator, Sequence

from leadloop.cli import environment
from leadloop.core.errors import UsageError
from leadloop.core.escaping import escape_unprintable
from tasks.opt_out import LeftLeads, OptOutResult, opt_out_left


def require_opt_out_options(
    lead_ids: Sequence[str] | None, because: str | None, *, left_source: bool, yes: bool
) -> None:
    """Check that the options of `leadloop opt-out` belong together.

    Raises:
        UsageError: they do not; the message names the missing or the surplus one.
    """
    if bool(lead_ids) == left_source:
        raise UsageError("name the leads, by --lead-id, or take those of --left-source")
    if yes and not left_source:
        raise UsageError("--yes belongs to --left-source")
    if because is not None and left_source:
        raise UsageError("--because belongs to --lead-id")


def run_opt_out_left(campaign_id: str, *, agrees_to_all: bool) -> int:
    """Opt out the leads whose rows have left the source, if the person agrees.

    Returns:
        The number of leads that opted out.

    Raises:
        UsageError: there is nobody to ask, or the campaign has no source.
        RunError: the source cannot be read.
    """
    if not agrees_to_all and not sys.stdin.isatty():
        raise UsageError("it asks before leads opt out: run it in a terminal, or with --yes")

    def agrees(found: LeftLeads) -> bool:
        leads = "1 lead was" if found.left == 1 else f"{found.left:,} leads were"
        line = (
            f"Campaign {campaign_id}: of {found.leads:,} leads, {leads} sent and have no row in"
            f" {found.source} any more. They opt out for good: the vendor cannot enable a lead"
            " again."
        )
        print(escape_unprintable(line), file=sys.stderr, flush=True)
        if agrees_to_all:
            return True
        print("Opt them out? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    with environment.open_configured_database() as (settings, database):
        return opt_out_left(database, settings, campaign_id, agrees)


def describe_opt_outs(campaign_id: str, result: OptOutResult) -> Iterator[str]:
    """Describe what an opt-out has changed, in lines for people."""
    if result.opted_out:
        yield (
            f"Opted out: {', '.join(result.opted_out)}. No push sends them any more; the next"
            " disable sends the opt-outs of those that were sent."
        )
    if result.opted_out_before:
        yield f"Opted out before, nothing changed: {', '.join(result.opted_out_before)}."
    if result.unknown:
        yield (
            f"Campaign {campaign_id} has no lead {', '.join(result.unknown)}: if the id is right,"
            " the opt-out counts for the lead that comes; case and leading zeros count"
        )
