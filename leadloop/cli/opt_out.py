"""`leadloop opt-out`: opts leads out by a person's word; asks before many do."""

from collections.abc import Iterator, Sequence

from leadloop.cli import environment
from leadloop.cli.confirmation import ask_to_go_on, print_announcement, require_answerable
from leadloop.core.errors import RunError, UsageError
from leadloop.core.plurals import format_count
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
    """Opt out the leads whose rows have left the source, once the person agrees.

    Returns:
        The number of leads that opted out.

    Raises:
        UsageError: there is nobody to ask, or the campaign has no source.
        RunError: the source cannot be read, or the person does not agree.
    """
    if not agrees_to_all:
        require_answerable("leadloop opt-out --left-source")

    def confirm(found: LeftLeads) -> None:
        announcement = (
            f"Campaign {campaign_id}: {format_count(found.left, 'lead was', 'leads were')} sent and"
            f" left {found.source}, of {format_count(found.leads, 'lead')}. They opt out for good:"
            " the vendor cannot enable a lead again."
        )
        if agrees_to_all:
            print_announcement(announcement)
        elif not ask_to_go_on(announcement):
            raise RunError("nobody has opted out, because it was not confirmed")

    with environment.open_configured_database() as (settings, database):
        return opt_out_left(database, settings, campaign_id, confirm)


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
