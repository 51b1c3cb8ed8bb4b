"""Flows run in this process, as the commands of the command line run them."""

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
import yaml
from prefect.logging.handlers import PrefectConsoleHandler

from db.database import Database
from flows.local_runs import FLOWS, run_flow_locally
from leadloop.core.progress import has_no_listener
from leadloop.core.summaries import collect_summary
from leadloop.sandbox import SandboxHandle
from tasks.jobs import CampaignsFailed
from tests import factories
from tests.factories import CAMPAIGN

pytestmark = pytest.mark.usefixtures("prefect", "environment")


@dataclass(kw_only=True)
class Bars:
    """A listener of progress: totals and what is done, by label."""

    totals: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)

    def add_total(self, label: str, total: int) -> None:
        """Add to the work expected."""
        self.totals[label] = self.totals.get(label, 0) + total

    def advance(self, label: str, amount: int) -> None:
        """Add to the work done."""
        self.done[label] = self.done.get(label, 0) + amount


@pytest.fixture
def local_log() -> Iterator[io.StringIO]:
    """What Prefect writes to the terminal of a local run."""
    handler = PrefectConsoleHandler(stream=io.StringIO())
    log = logging.getLogger("prefect.flow_runs")
    log.addHandler(handler)
    yield cast("io.StringIO", handler.stream)
    log.removeHandler(handler)


def test_every_deployed_flow_runs_locally_too() -> None:
    """By the name of its deployment, but for `fan-out`, which starts others on a work pool.

    `leadloop live` does what `live-leads` does, without Prefect.
    """
    content = (Path(__file__).parents[2] / "prefect.yaml").read_text(encoding="utf-8")
    deployed = {deployment["flow_name"] for deployment in yaml.safe_load(content)["deployments"]}
    assert {*FLOWS} == deployed - {"fan-out", "live-leads"}
    assert all(name == flow.name for name, flow in FLOWS.items())


def test_a_local_run_reports_its_progress_and_its_summary(
    database: Database, vendor: SandboxHandle
) -> None:
    """To its listener and its collector, which no later run reaches."""
    factories.add_campaign(database, batch_size=2)
    factories.add_leads(database, *(f"L{number}" for number in range(9)))
    bars = Bars()
    with collect_summary() as collected:
        run_flow_locally("push-leads", {"campaigns": [CAMPAIGN]}, bars)
    assert collected.summary["created"] == 9
    assert bars.totals == bars.done == {f"push {CAMPAIGN}": 9}
    assert has_no_listener()


def test_a_local_run_that_fails_leaves_one_line_to_its_caller(
    database: Database, vendor: SandboxHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """The log repeats no error; the counts of the others and the reason are there."""
    for campaign in (CAMPAIGN, "GONE"):
        factories.add_campaign(database, campaign)
        factories.add_leads(database, "a", campaign=campaign)
    vendor.change_rules(campaigns={CAMPAIGN: "Fine"})
    with (
        collect_summary() as collected,
        pytest.raises(CampaignsFailed, match=r"^campaign GONE: .*HTTP 404"),
    ):
        run_flow_locally("push-leads", {}, Bars())
    assert collected.summary["created"] == 1
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert has_no_listener()


def test_an_id_in_the_log_cannot_drive_the_terminal(
    database: Database, vendor: SandboxHandle, local_log: io.StringIO
) -> None:
    """The vendor fails on one opt-out, and the run names it."""
    factories.add_campaign(database)
    factories.add_opt_outs(database, "a\x1b[2Jb", "c")
    vendor.add_fault(route="disable", kind="status", lead_id="a\x1b[2Jb")
    run_flow_locally("disable-leads", {}, Bars())
    assert r"a\u001b[2Jb" in local_log.getvalue()
    assert "\x1b[2J" not in local_log.getvalue()
