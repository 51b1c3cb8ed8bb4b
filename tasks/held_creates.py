"""Held creates: the line that ends a push, and how `leadloop restored` and `release` work.

`db.create_holds` has the reason for holds; `tasks.audit` ends a hold that it proves needless.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from db import campaigns, create_holds, opt_out_source
from db.create_holds import CreateHold
from db.database import Connection, Database, DatabaseError
from leadloop.core.errors import RunError, UsageError
from leadloop.settings import Settings
from tasks.context import ApiContext, CampaignRun

_RESTORED = "a person reported a restore"


@dataclass(frozen=True, kw_only=True)
class ReleaseResult:
    """The campaigns whose hold was ended, and those that were not held."""

    released: Sequence[str]
    not_held: Sequence[str]


def require_no_hold(run: CampaignRun[ApiContext]) -> None:
    """Check that the campaign's creates are not held; detect a change of the database first.

    Raises:
        RunError: they are held; the message names what was found, and the commands.
    """
    run.write(create_holds.check_database)
    campaign_id = run.campaign.campaign_id
    if hold := run.write(create_holds.find_hold, campaign_id):
        raise RunError(
            f"creates are held since {format_utc(hold.held_at)} ({hold.reason}): leads that"
            f" were sent may be new or missing here; to compare: `{audit_command(campaign_id)}`;"
            f" if nothing was lost: `{release_command(campaign_id)}`"
        )


def find_release_wait(run: CampaignRun[ApiContext]) -> timedelta:
    """Return how long after the hold a listing must begin to show every lead that was sent before.

    A request that had left may last as long as its timeouts, and its leads show after the settle
    time.
    """
    return timedelta(seconds=sum(run.context.settings.parse_timeouts())) + run.campaign.settle


def format_utc(moment: datetime) -> str:
    """Return a time in UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def audit_command(campaign_id: str) -> str:
    """Return the command that repairs a campaign and ends its hold."""
    return f"leadloop audit --repair --campaign {shlex.quote(campaign_id)}"


def release_command(campaign_id: str) -> str:
    """Return the command with which a person ends a campaign's hold."""
    return f'leadloop release --campaign {shlex.quote(campaign_id)} --because "why"'


def report_restore(
    database: Database, settings: Settings, campaign_ids: Sequence[str]
) -> list[CreateHold]:
    """Hold the creates of campaigns after a restore; idempotent. No ids: of all campaigns.

    Opt-outs from the campaigns' own tables that the restore has lost are taken again.

    Returns:
        The open holds of these campaigns.

    Raises:
        UsageError: an unknown campaign, or there is no campaign.
        RunError: creates are held, but the opt-outs of a table could not be taken again.
    """

    def hold(connection: Connection) -> list[CreateHold]:
        create_holds.check_database(connection)
        if not campaigns.list_campaigns(connection, campaign_ids, settings.campaign_rules()):
            raise UsageError("there is no campaign to hold in leadloop.campaigns")
        create_holds.hold_creates(connection, campaign_ids, _RESTORED)
        return create_holds.list_holds(connection, campaign_ids)

    # Committed first: the rest waits for reads of opt-out sources.
    holds = database.retry(hold)
    try:
        database.run(opt_out_source.forget_unfounded, region=settings.default_region)
    except DatabaseError as error:
        raise RunError(
            "creates are held, but opt-outs that the restore has lost are not taken again yet:"
            f" {error}; run the same command again"
        ) from None
    return holds


def release_held(
    database: Database, settings: Settings, campaign_ids: Sequence[str], reason: str
) -> ReleaseResult:
    """End the holds of campaigns on a person's word, which is kept.

    Control and invisible characters of the reason become blanks.

    Raises:
        UsageError: an unknown campaign, or the reason is empty.
    """
    words = "".join(c if c.isprintable() else " " for c in reason).split()
    if not words:
        raise UsageError("the reason is empty: write why no lead can be created twice")

    def release(connection: Connection) -> ReleaseResult:
        campaigns.list_campaigns(connection, campaign_ids, settings.campaign_rules())
        create_holds.check_database(connection)
        released = create_holds.release_creates(connection, campaign_ids, " ".join(words))
        return ReleaseResult(released=released, not_held=sorted(set(campaign_ids) - set(released)))

    return database.run(release)
