"""What can be counted: requests, and the bytes that Postgres writes."""

from collections.abc import Callable
from functools import partial
from math import ceil

from tests import sql
from tests.bench.report import Figure, Section
from tests.bench.stage import CAMPAIGN, Stage, Vendor, outcomes

_PAGE = 100
_BATCH = 100


def requests(stage: Stage, amount: int, _: int) -> list[Section]:
    """No request more than the work needs."""
    stage.renew(amount)
    with stage.vendor() as vendor:
        nothing = {name: _cost(stage, vendor, name) for name in ("push", "disable")}
        stage.load()
        push = _cost(stage, vendor, "push")
        processed, _began, _end = outcomes(amount)
        vendor.put(processed)
        poll = _cost(stage, vendor, "poll")
        idle = _cost(stage, vendor, "poll", LOOKBACK="0")
        opted_out = min(amount, 1000)
        sql.execute(
            stage.database,
            """INSERT INTO leadloop.disable_requests (campaign_id, lead_id)
               SELECT campaign_id, lead_id FROM leadloop.leads ORDER BY seq LIMIT :most""",
            most=opted_out,
        )
        disable = _cost(stage, vendor, "disable")
    pages = ceil(amount / _PAGE)
    figures = [
        _exactly("push with nothing to send", nothing["push"], 0),
        _exactly("disable with nobody to disable", nothing["disable"], 0),
        _exactly(f"push of {amount:,} leads", push, ceil(amount / _BATCH)),
        _exactly("poll with nothing new", idle, 1),
        Figure(what=f"poll of {amount:,} outcomes ({pages:,} pages)", measured=f"{poll:,}"),
        Figure(what=f"disable of {opted_out:,} leads", measured=f"{disable:,}"),
    ]
    conditions = (
        f"Batches and pages of {_PAGE}; counted by the sandbox. The idle poll has no lookback: with"
        " one it would read the outcomes of a moment ago again."
    )
    return [Section(title="Requests", conditions=conditions, figures=figures)]


def wal(stage: Stage, amount: int, _: int) -> list[Section]:
    """What Postgres writes for a lead through its whole life, after a checkpoint each."""
    stage.renew(amount)
    sql.execute(stage.database, "CREATE TABLE bench.plain (LIKE bench.leads INCLUDING ALL)")
    sql.execute(stage.database, "ALTER TABLE bench.plain ADD COLUMN status text DEFAULT 'new'")
    floor = sum(
        _written(stage, partial(sql.execute, stage.database, statement))
        for statement in (
            "INSERT INTO bench.plain SELECT * FROM bench.leads",
            "UPDATE bench.plain SET status = 'created'",
        )
    )
    inserted = _written(stage, stage.load)
    with stage.vendor() as vendor:
        pushed = _written(stage, lambda: stage.leadloop(vendor, "push"))
        processed, _began, _end = outcomes(amount)
        vendor.put(processed)
        polled = _written(stage, lambda: stage.leadloop(vendor, "poll"))
    size = sql.fetch_value(stage.database, "SELECT pg_total_relation_size('leadloop.leads')::float")

    def told(what: str, amount_written: int) -> Figure:
        return Figure(
            what=what,
            measured=f"{amount_written / amount:,.0f} bytes",
            ratio=f"{amount_written / floor:.2f}",
        )

    figures = [
        told("one INSERT and one UPDATE of a plain table", floor),
        told("the insert by upstream", inserted),
        told("the push: claimed, and recorded as created", pushed),
        told("**insert and push**", inserted + pushed),
        told("the poll: an outcome and two attempts", polled),
        told("**the whole life of a lead**", inserted + pushed + polled),
        Figure(
            what="`leadloop.leads` on disk after it, indexes included",
            measured=f"{size / amount:,.0f} bytes a lead",
        ),
    ]
    return [
        Section(
            title="Bytes written to Postgres for a lead",
            conditions=f"{amount:,} leads; WAL by pg_current_wal_insert_lsn, after a checkpoint, so"
            " with the full pages that follow one.",
            figures=figures,
        )
    ]


def _cost(stage: Stage, vendor: Vendor, command: str, **settings: str) -> int:
    before = len(vendor.requests())
    stage.leadloop(vendor, command, "--campaign", CAMPAIGN, **settings)
    return len(vendor.requests()) - before


def _exactly(what: str, amount: int, wanted: int) -> Figure:
    return Figure(what=what, measured=f"{amount:,}", target=f"{wanted:,}", met=amount == wanted)


def _written(stage: Stage, work: Callable[[], object]) -> int:
    stage.settle()
    before = _position(stage)
    work()
    return _position(stage) - before


def _position(stage: Stage) -> int:
    return int(sql.fetch_value(stage.database, "SELECT pg_current_wal_insert_lsn() - '0/0'"))
