"""Invariants of both sides' records: true after every step, whatever has failed in it."""

from decimal import Decimal
from typing import Any

from db import counts
from tests import sql
from tests.factories import CAMPAIGN
from tests.resilience.counters import COUNTERS
from tests.resilience.model import LoopModel

_STATUSES = {"new", "sending", "created", "rejected", "in_doubt", "cancelled"}
_OPT_OUTS = {"requested", "disabled", "cancelled", "failed"}


def check_created_at_most_once(model: LoopModel) -> None:
    """Check that the vendor never received a lead that it had already."""
    twice = {
        lead_id: times
        for lead_id, times in model.vendor.store.creations(CAMPAIGN).items()
        if times > 1
    }
    COUNTERS["doubles"] += len(twice)
    assert twice == {}
    assert model.vendor.store.violations == []


def check_no_opt_out_sent(model: LoopModel) -> None:
    """Check that the vendor has no lead that opted out before it was sent."""
    assert model.never_send & set(model.vendor.store.creations(CAMPAIGN)) == set()


def check_no_opted_out_number_sent(model: LoopModel) -> None:
    """Check that the vendor has no lead whose number opted out under another id (issue 3 §8)."""
    assert model.never_send_by_phone & set(model.vendor.store.creations(CAMPAIGN)) == set()


def check_statuses(model: LoopModel) -> None:
    """Check that each lead's status matches the vendor; no lead is `sending` without a run."""
    statuses, has = sql.fetch_statuses(model.database), set(model.vendor.store.creations(CAMPAIGN))
    assert set(statuses.values()) <= _STATUSES - {"sending"}
    lacking = {key for key, status in statuses.items() if status == "created" and key not in has}
    assert lacking == set(), "created here, but not at the vendor"
    unsent = {key for key, status in statuses.items() if status in ("new", "cancelled")}
    assert unsent & has == set(), "not sent here, but at the vendor"


def check_opt_outs(model: LoopModel) -> None:
    """Check that the vendor lacks every cancelled lead and has stopped every disabled one."""
    states, has = sql.fetch_opt_outs(model.database), set(model.vendor.store.creations(CAMPAIGN))
    stopped = set(model.vendor.store.disabled(CAMPAIGN))
    assert set(states.values()) <= _OPT_OUTS
    cancelled = {key for key, state in states.items() if state == "cancelled"}
    assert cancelled & has == set(), "cancelled here, but at the vendor"
    disabled = {key for key, state in states.items() if state == "disabled"}
    assert (disabled & has) - stopped == set(), "disabled here, but not at the vendor"


def check_outcomes(model: LoopModel) -> None:
    """Check that every stored outcome is one that the vendor has shown, unchanged."""
    model.record_outcomes()
    for lead_id, at, *facts in fetch_stored_outcomes(model):
        assert at in model.shown_outcomes.get(lead_id, {}), (
            f"{lead_id}: the vendor has shown no outcome of this time"
        )
        assert tuple(facts) == model.shown_outcomes[lead_id][at]


def check_watermark(model: LoopModel) -> None:
    """Check that the watermark only moves forward, and that outcomes up to it are stored."""
    mark = model.fetch_watermark()
    if model.highest_watermark is not None:
        assert mark is not None
        assert mark >= model.highest_watermark, "the watermark moved back"
    model.highest_watermark = mark
    if mark is None:
        return
    limit = mark.timestamp() * 1000
    due = {seen for seen in model.record_outcomes() - model.late_outcomes if seen[1] <= limit}
    missing = {(key, model.round_to_api(at)) for key, at in due} - {
        row[:2] for row in fetch_stored_outcomes(model)
    }
    COUNTERS["lost"] += len(missing)
    assert missing == set()


def check_counts(model: LoopModel) -> None:
    """Check that the sums that the views read are those of the rows."""
    with model.database.transaction() as connection:
        assert counts.count_drift(connection) == 0


def check_runs_finished(model: LoopModel) -> None:
    """Check that every run has a final state."""
    query = "SELECT DISTINCT state FROM leadloop.sync_runs"
    states = {row["state"] for row in sql.fetch_rows(model.database, query)}
    assert states <= {"completed", "failed"}


def fetch_stored_outcomes(model: LoopModel) -> list[tuple[Any, ...]]:
    """Return the stored outcomes: lead, epoch ms, and the facts of `LoopModel.shown_outcomes`."""
    found = sql.fetch_rows(
        model.database,
        "SELECT lead_id, round(extract(epoch FROM processed_at) * 1000) AS at, outcome_id,"
        " outcome_name, total_cost FROM leadloop.lead_outcomes WHERE campaign_id = :campaign",
        campaign=CAMPAIGN,
    )
    return [
        (row["lead_id"], int(row["at"]), row["outcome_id"], row["outcome_name"], _parse_cost(row))
        for row in found
    ]


def _parse_cost(row: dict[str, Any]) -> float:
    assert isinstance(row["total_cost"], Decimal)
    return float(row["total_cost"])


def check_all_settled(model: LoopModel) -> None:
    """Check the final state: each valid lead once, each opt-out stopped, each outcome stored."""
    statuses, created = sql.fetch_statuses(model.database), model.vendor.store.creations(CAMPAIGN)
    excused = model.opted_out | model.never_send_by_phone
    wanted = {key for key, lead in model.leads.items() if lead.is_valid} - excused
    COUNTERS["lost"] += len(wanted - set(created))
    assert {key: statuses[key] for key in wanted} == dict.fromkeys(wanted, "created")
    assert {key: created.get(key) for key in wanted} == dict.fromkeys(wanted, 1)
    bad = {key for key, lead in model.leads.items() if not lead.is_valid}
    assert {statuses[key] for key in bad - excused} <= {"rejected"}
    assert {statuses[key] for key in excused & set(statuses)} <= {
        "created",
        "cancelled",
        "rejected",
    }
    _check_opt_outs_settled(model, set(created))
    vendors = {(key, model.round_to_api(at)) for key, at in model.record_outcomes()}
    assert {row[:2] for row in fetch_stored_outcomes(model)} == vendors


def _check_opt_outs_settled(model: LoopModel, created: set[str]) -> None:
    states = sql.fetch_opt_outs(model.database)
    assert "requested" not in states.values()
    stopped = set(model.vendor.store.disabled(CAMPAIGN))
    assert (model.opted_out & created) - stopped == set(), "opted out, but not stopped"


INVARIANTS = (
    check_created_at_most_once,
    check_no_opt_out_sent,
    check_no_opted_out_number_sent,
    check_statuses,
    check_opt_outs,
    check_outcomes,
    check_watermark,
    check_counts,
    check_runs_finished,
)
