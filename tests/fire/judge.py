"""What must be true of both sides' books after every step, whatever has gone wrong in it."""

from decimal import Decimal
from typing import Any

from tests import sql
from tests.factories import CAMPAIGN
from tests.fire.tally import TALLY
from tests.fire.world import World

_STATUSES = {"new", "sending", "created", "rejected", "in_doubt", "cancelled"}
_OPT_OUTS = {"requested", "disabled", "cancelled", "failed"}


def created_at_most_once(world: World) -> None:
    """The vendor was never given a lead that it had."""
    twice = {
        lead_id: times
        for lead_id, times in world.vendor.books.creations(CAMPAIGN).items()
        if times > 1
    }
    TALLY["doubles"] += len(twice)
    assert twice == {}
    assert world.vendor.books.violations == []


def no_opt_out_was_sent(world: World) -> None:
    """Who opted out before the vendor had them is not with the vendor."""
    assert world.never & set(world.vendor.books.creations(CAMPAIGN)) == set()


def no_opted_out_number_was_sent(world: World) -> None:
    """Nor is anybody else under a number that had opted out (issue 3 §8)."""
    assert world.never_by_phone & set(world.vendor.books.creations(CAMPAIGN)) == set()


def statuses_fit(world: World) -> None:
    """What we say of a lead is so at the vendor; nothing is on its way when no run is."""
    statuses, has = sql.fetch_statuses(world.database), set(world.vendor.books.creations(CAMPAIGN))
    assert set(statuses.values()) <= _STATUSES - {"sending"}
    lacking = {key for key, status in statuses.items() if status == "created" and key not in has}
    assert lacking == set(), "created here, and not at the vendor"
    unsent = {key for key, status in statuses.items() if status in ("new", "cancelled")}
    assert unsent & has == set(), "not sent, and at the vendor all the same"


def opt_outs_fit(world: World) -> None:
    """What was confirmed is so: a cancelled lead is unknown there, a disabled one is stopped."""
    states, has = sql.fetch_opt_outs(world.database), set(world.vendor.books.creations(CAMPAIGN))
    stopped = set(world.vendor.books.disabled(CAMPAIGN))
    assert set(states.values()) <= _OPT_OUTS
    cancelled = {key for key, state in states.items() if state == "cancelled"}
    assert cancelled & has == set(), "cancelled, and at the vendor"
    disabled = {key for key, state in states.items() if state == "disabled"}
    assert (disabled & has) - stopped == set(), "disabled here, and not at the vendor"


def outcomes_are_the_vendors(world: World) -> None:
    """Every outcome that is stored is one that the vendor has shown, as it showed it."""
    world.note_outcomes()
    for lead_id, at, *facts in stored(world):
        assert at in world.told.get(lead_id, {}), f"{lead_id}: no outcome of that time"
        assert tuple(facts) == world.told[lead_id][at]


def the_watermark_is_not_ahead(world: World) -> None:
    """It never moves back, and all that shows up to it is stored, but for what came too late."""
    mark = world.watermark()
    if world.highest is not None:
        assert mark is not None
        assert mark >= world.highest, "the watermark moved back"
    world.highest = mark
    if mark is None:
        return
    limit = mark.timestamp() * 1000
    due = {seen for seen in world.note_outcomes() - world.late if seen[1] <= limit}
    missing = {(key, world.as_shown(at)) for key, at in due} - {row[:2] for row in stored(world)}
    TALLY["lost"] += len(missing)
    assert missing == set()


def runs_are_over(world: World) -> None:
    """Every run has said how it ended."""
    query = "SELECT DISTINCT state FROM leadloop.sync_runs"
    states = {row["state"] for row in sql.fetch_rows(world.database, query)}
    assert states <= {"completed", "failed"}


def stored(world: World) -> list[tuple[Any, ...]]:
    """The outcomes in Postgres: lead, epoch ms, and the facts that `World.told` has."""
    found = sql.fetch_rows(
        world.database,
        "SELECT lead_id, round(extract(epoch FROM processed_at) * 1000) AS at, outcome_id,"
        " outcome_name, total_cost FROM leadloop.lead_outcomes WHERE campaign_id = :campaign",
        campaign=CAMPAIGN,
    )
    return [
        (row["lead_id"], int(row["at"]), row["outcome_id"], row["outcome_name"], _cost(row))
        for row in found
    ]


def _cost(row: dict[str, Any]) -> float:
    assert isinstance(row["total_cost"], Decimal)
    return float(row["total_cost"])


def all_settled(world: World) -> None:
    """In the end: each good lead once, no other but for a reason, each opt-out, each outcome."""
    statuses, created = sql.fetch_statuses(world.database), world.vendor.books.creations(CAMPAIGN)
    excused = world.opted_out | world.never_by_phone
    wanted = {key for key, lead in world.leads.items() if lead.good} - excused
    TALLY["lost"] += len(wanted - set(created))
    assert {key: statuses[key] for key in wanted} == dict.fromkeys(wanted, "created")
    assert {key: created.get(key) for key in wanted} == dict.fromkeys(wanted, 1)
    bad = {key for key, lead in world.leads.items() if not lead.good}
    assert {statuses[key] for key in bad - excused} <= {"rejected"}
    assert {statuses[key] for key in excused & set(statuses)} <= {
        "created",
        "cancelled",
        "rejected",
    }
    _opt_outs_settled(world, set(created))
    vendors = {(key, world.as_shown(at)) for key, at in world.note_outcomes()}
    assert {row[:2] for row in stored(world)} == vendors


def _opt_outs_settled(world: World, created: set[str]) -> None:
    states = sql.fetch_opt_outs(world.database)
    assert "requested" not in states.values()
    stopped = set(world.vendor.books.disabled(CAMPAIGN))
    assert (world.opted_out & created) - stopped == set(), "opted out, and not stopped"


INVARIANTS = (
    created_at_most_once,
    no_opt_out_was_sent,
    no_opted_out_number_was_sent,
    statuses_fit,
    opt_outs_fit,
    outcomes_are_the_vendors,
    the_watermark_is_not_ahead,
    runs_are_over,
)
