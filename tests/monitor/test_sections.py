"""The sections below the overview."""

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pandas.api.types import is_numeric_dtype

from db.database import Database
from db.monitor import MAX_RUNS, read_history, read_status_snapshot
from leadloop.monitor.sections import (
    MAX_LISTED,
    show_campaigns,
    show_charts,
    show_latencies,
    show_rejections,
    show_runs,
)
from tests import factories
from tests.monitor import seed_data
from tests.monitor.page_script import configure_page, read_uncached, run_page, run_part


def build_run(**changes: Any) -> dict[str, Any]:
    """Return a row of the runs; `changes` replace its columns."""
    fixed = {
        "state": "completed",
        "flow": "push-leads",
        "campaign_id": "C1",
        "started_at": datetime(2026, 3, 1, tzinfo=UTC),
        "duration_s": 1.5,
        "requests": 3,
        "error": None,
        "flow_run_id": "id-1",
        "run_id": 1,
    }
    return {**fixed, **changes}


def test_worst_campaign_first(database: Database) -> None:
    """The campaign with a critical problem is on top, whatever its id; health is a word."""
    seed_data.seed_stuck(database)
    campaigns = read_status_snapshot(database).campaigns
    (table,) = run_part(show_campaigns, campaigns[::-1]).dataframe
    assert list(table.value["campaign_id"]) == ["EAST-1", "WEST-2"]
    assert list(table.value["health"]) == ["✖ critical", "▲ warning"]
    assert list(table.value["enabled"]) == ["yes", "yes"]


def test_missing_values_are_dashes(database: Database) -> None:
    """A campaign without a run or an outcome, and a run that has sent nothing, show no None."""
    factories.add_campaign(database)
    (campaigns,) = run_part(show_campaigns, read_status_snapshot(database).campaigns).dataframe
    assert campaigns.value["last_push_at"].isna().all()
    assert campaigns.proto.placeholder == "–"


def test_every_number_has_a_format(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """No table shows a figure as Streamlit would: as a whole page of tables, and at any size."""
    seed_data.seed_stuck(database)
    configure_page(monkeypatch)
    read_uncached(monkeypatch, database)
    tables = run_page(tables="true").dataframe
    assert len(tables) == 10
    for table in tables:
        columns = json.loads(table.proto.columns)
        order = list(table.proto.column_order) or list(table.value.columns)
        assert table.proto.placeholder == "–"
        for name in order:
            # An hour of the day, 0 to 23, needs none.
            if is_numeric_dtype(table.value[name]) and name != "hour":
                assert columns[name].get("type_config", {}).get("format"), name
            elif table.value[name].dtype == object:
                assert not any(isinstance(each, Decimal) for each in table.value[name]), name


def test_very_many_campaigns_are_cut(database: Database) -> None:
    """The page lists the worst ones; a line states how many there are, and where the others are."""
    seed_data.seed_stuck(database)
    status = read_status_snapshot(database)
    (stuck, *_) = [row for row in status.campaigns if row["health"] == "critical"]
    well = [{**stuck, "campaign_id": f"W-{n}", "health": "ok"} for n in range(MAX_LISTED)]
    part = run_part(show_campaigns, [*well, stuck])
    assert len(part.dataframe[0].value) == MAX_LISTED
    assert part.dataframe[0].value["campaign_id"][0] == stuck["campaign_id"]
    limit = (
        f"The worst {MAX_LISTED} of {MAX_LISTED + 1}; the filter above shows others, the CSV all."
    )
    assert part.caption[0].value == limit
    assert not run_part(show_campaigns, well).caption
    quick = next(row for row in status.latencies if row["kind"] == "lead")
    slow = {**quick, "campaign_id": "slow", "p99_s": math.inf}
    part = run_part(show_latencies, [*[quick] * MAX_LISTED, slow])
    assert part.dataframe[0].value["campaign_id"][0] == "slow"
    assert [len(part.dataframe[0].value), part.caption[1].value] == [MAX_LISTED, limit]


def test_charts_without_figures(database: Database) -> None:
    """Each heading stays, with a text in place of its chart and without a download."""
    status, history = read_status_snapshot(database), read_history(database, [], None)
    part = run_part(show_charts, status, history, as_tables=False)
    assert len(part.subheader) == len(part.info) == 6
    assert {info.value for info in part.info} == {"No lead yet.", "Nothing in this period."}
    assert not part.get("download_button")


def test_latencies_of_the_last_hour(database: Database) -> None:
    """A row a campaign and kind, with bounds as people read them; no section without any."""
    seed_data.seed_healthy(database)
    latencies = read_status_snapshot(database).latencies
    (table,) = run_part(show_latencies, latencies).dataframe
    east = table.value[table.value["campaign_id"] == "EAST-1"]
    assert list(east["kind"]) == ["lead", "opt-out", "outcome"]
    assert list(east["p50_s"]) == ["0.1 s", "0.2 s", "10 s"]
    assert list(east["worst_s"]) == ["0.1 s", "0.2 s", "> 1 h"]
    assert not run_part(show_latencies, []).subheader


def test_rejection_reasons(database: Database) -> None:
    """Reasons with their counts; no section without a rejection."""
    seed_data.seed_healthy(database)
    part = run_part(show_rejections, read_history(database, [], None)["rejections"])
    assert set(part.dataframe[0].value["reason"]) == {"phone_number: not a phone number"}
    assert sum(part.dataframe[0].value["leads"]) == 17
    assert not run_part(show_rejections, []).subheader


def test_runs_link_to_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has a link to Prefect's UI; without a known UI the column is missing."""
    runs = [build_run(), build_run(state="failed", error="no", flow_run_id=None)]
    configure_page(monkeypatch, "http://host:4200")
    (table,) = run_part(show_runs, runs).dataframe
    links = list(table.value["prefect"].fillna(""))
    assert links == ["http://host:4200/runs/flow-run/id-1", ""]
    assert list(table.value["state"]) == ["● completed", "✖ failed"]
    assert list(table.value["error"]) == ["", "no"]
    assert "prefect" in table.proto.column_order
    configure_page(monkeypatch, None)
    assert "prefect" not in run_part(show_runs, runs).dataframe[0].proto.column_order


def test_list_of_runs_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is cut at its limit says so; a period without a run says that."""
    configure_page(monkeypatch)
    full = run_part(show_runs, [build_run()] * MAX_RUNS)
    assert full.caption[0].value == f"The latest {MAX_RUNS}."
    assert not run_part(show_runs, [build_run()] * (MAX_RUNS - 1)).caption
    assert run_part(show_runs, []).info[0].value == "No run in this period."
