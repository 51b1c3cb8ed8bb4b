"""Every table of every command on a terminal of 80 columns: nothing is wider, nothing is cut."""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from db.campaign_status import read_campaign_report
from db.database import Database
from leadloop.cli import rendering
from leadloop.cli.literal_console import LiteralConsole
from leadloop.cli.live import render_live
from leadloop.sandbox import SandboxHandle
from tasks.audit import AUDIT
from tasks.disable import DISABLE
from tasks.housekeeping import HOUSEKEEPING
from tasks.jobs import JobSpec
from tasks.live import LiveState
from tasks.poll import POLL
from tasks.push import PUSH
from tests import factories, sql
from tests.cli.conftest import Command

_WIDTH = 80
#: As long as people and other systems make them.
_CAMPAIGNS = [f"EMEA-RENEWALS-2026-Q4-PREMIUM-CUSTOMERS-WITHOUT-CONTRACT-{n:04d}" for n in (1, 2)]
_LEADS = [f"{n:03d}-8f14e45f-ceea-467f-a0e6-5f1d9a3b7c21-customer-record" for n in range(5)]
_LARGE = 1_234_567_890
_LARGE_COUNTS = f"""
INSERT INTO leadloop.count_changes (kind, hour, campaign_id, name, amount, marked)
SELECT kind, date_trunc('hour', now()), campaign_id, counted.name, {_LARGE}, 0
  FROM leadloop.campaigns,
       (VALUES ('lead', 'created'), ('lead', 'cancelled'), ('outcome', 'Sold'),
               ('opt_out', 'disabled')) AS counted (kind, name)
"""


def assert_fits(shown: str, *texts: str) -> None:
    """Assert that no line is wider than the terminal, and that each text is shown whole."""
    lines = shown.splitlines()
    wide = [line for line in lines if cell_len(line) > _WIDTH]
    assert not wide, wide
    # But for the legend: "(…) not enabled".
    assert "…" not in shown.replace("(…)", "")
    for text in texts:
        assert is_shown(text, lines), f"{text} is not shown whole in:\n{shown}"


def is_shown(text: str, lines: Sequence[str]) -> bool:
    """Return whether a cell has a text, which may go on in the lines below its first part."""
    for number, line in enumerate(lines):
        start, rest = line.find(text[:10]), text
        for below in lines[number:] if start >= 0 else ():
            same = takewhile(
                lambda pair: pair[0] == pair[1], zip(below[start:], rest, strict=False)
            )
            shown = len(list(same))
            rest = rest[shown:].lstrip()
            if not rest:
                return True
            if not shown:
                break
    return False


@pytest.fixture
def large(database: Database) -> Database:
    """Two campaigns with long ids, reasons and lead ids, and large numbers."""
    for campaign in _CAMPAIGNS:
        factories.add_campaign(database, campaign)
        changes: list[dict[str, Any]] = [
            *({}, {"state_code": "??"}, {"phone_number": "555-CALL-ME"}),
            *({"contact_name": "x" * 60}, {}),
        ]
        for number, (lead_id, change) in enumerate(zip(_LEADS, changes, strict=False)):
            columns = {
                "phone_number": factories.build_phone(number),
                "contact_name": "Ann",
                **change,
            }
            factories.add_leads(
                database, factories.build_lead(lead_id, **columns), campaign=campaign
            )
        factories.add_opt_outs(database, _LEADS[4], campaign=campaign)
    return database


@pytest.mark.usefixtures("large")
def test_plan(invoke: Command) -> None:
    """Reasons and ids, and an id that is longer than a line."""
    ran = invoke("plan", "--show", COLUMNS="80")
    assert ran.code == 0, ran.err
    assert_fits(ran.out, f"a push of {_CAMPAIGNS[0]}", "phone_number: has letters")
    for lead_id in _LEADS[:5]:
        assert lead_id in "".join(ran.out.split())


def test_runs(
    invoke: Command, large: Database, vendor: SandboxHandle, prefect: str, quick_retries: None
) -> None:
    """Each flow's counts, by campaign, and what a push rejected."""
    vendor.change_rules(newer_limits=True)
    where = {"PREFECT_API_URL": prefect, "COLUMNS": "80"}
    pushed = invoke("push", **where)
    assert_fits(pushed.out, *_CAMPAIGNS, *_LEADS[1:4], "vendor: contact_name: longer than")
    assert_fits(invoke("disable", **where).out, *_CAMPAIGNS)
    assert_fits(invoke("poll", **where).out, *_CAMPAIGNS)
    assert_fits(
        invoke(
            "backfill", "--after", "2026-01-01T00:00Z", "--before", "2026-01-02T00:00Z", **where
        ).out,
        *_CAMPAIGNS,
    )
    assert_fits(invoke("sync", **where).out)
    vendor.reset()
    assert_fits(invoke("audit", **where).out, f"audit of {_CAMPAIGNS[0]}", _LEADS[0])
    assert_fits(invoke("housekeeping", **where).out)


def test_status(invoke: Command, large: Database, prefect: str) -> None:
    """Of one campaign with its reasons, and of several: the numbers in words of five letters."""
    sql.execute(large, _LARGE_COUNTS)
    invoke("push", PREFECT_API_URL=prefect)
    factories.owe_window(
        large,
        "2026-01-31T09:00:00.123Z",
        "2026-01-31T09:00:00.124Z",
        campaign=_CAMPAIGNS[0],
        reason="HTTP 500 " * 30,
    )
    assert_fits(invoke("status", COLUMNS="80").out, *_CAMPAIGNS)
    one = invoke("status", "--campaign", _CAMPAIGNS[0], COLUMNS="80").out
    assert_fits(one, _CAMPAIGNS[0], f"{_LARGE:,}", "state_code: ", *_LEADS[1:3])
    assert_fits(invoke("owed", COLUMNS="80").out, _CAMPAIGNS[0], "2026-01-31T09:00:00.123Z")
    console = LiteralConsole(width=_WIDTH)
    health, tables = large.run(read_campaign_report, _CAMPAIGNS[0])
    with console.capture() as captured:
        console.print(rendering.render_campaign(health))
        for title, rows in tables.items():
            console.print(rendering.render_rows(title, rows))
    assert_fits(captured.get(), *_LEADS[1:3])


def test_counts_of_other_commands(invoke: Command, large: Database, environment: Path) -> None:
    """Their tables have the campaign's id in the title."""
    header = "lead_id,phone_number,contact_name,state_code\n"
    (environment / "leads.csv").write_text(f"{header}new,+14155550123,Ann,NY\nbad\n")
    of_campaign = ("--campaign", _CAMPAIGNS[0])
    for arguments in (
        ("load", "leads.csv", *of_campaign, "--update"),
        ("requeue", "--rejected", "--in-doubt", "--disables", *of_campaign),
        ("forget", "--yes", "--lead-id", _LEADS[0], *of_campaign),
    ):
        ran = invoke(*arguments, COLUMNS="80")
        assert ran.code == 0, ran.err
        assert_fits(ran.out)


@pytest.mark.parametrize(
    "spec", [PUSH, DISABLE, POLL, HOUSEKEEPING, AUDIT], ids=lambda each: each.flow
)
def test_all_counts_at_once(spec: JobSpec[Any]) -> None:
    """No count is 0, and each is large: they stand one below the other, and none is missing."""
    counts = dict.fromkeys([*spec.counts, "requests"], _LARGE)
    summary = {**counts, "campaigns": {name: dict(counts) for name in _CAMPAIGNS}}
    console = LiteralConsole(width=_WIDTH)
    for shown in (summary, {"push": summary, "poll": summary}):
        with console.capture() as captured:
            rendering.print_summary(console, spec.flow if shown is summary else "sync-leads", shown)
        text = captured.get()
        assert_fits(text, *(name.replace("_", " ") for name in counts))
        assert text.count(f"{_LARGE:,}") >= len(counts)


def test_live() -> None:
    """Totals, lanes and the last lines of the log."""
    state = LiveState(shares=1, busy_with={"push": _CAMPAIGNS * 3})
    state.totals.update(created=_LARGE, requests=_LARGE)
    console = LiteralConsole(width=_WIDTH)
    with console.capture() as captured:
        console.print(render_live(state, [f"campaign {_CAMPAIGNS[0]}: HTTP 500 " * 3]))
    assert_fits(captured.get(), *_CAMPAIGNS, f"{_LARGE:,}")
