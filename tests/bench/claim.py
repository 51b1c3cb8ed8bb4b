"""What the claim of a batch costs: in a large table, and after much churn."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from db import leads, schema
from db.database import Connection, Database
from tests import factories, sql
from tests.bench.report import Figure, Section
from tests.bench.stage import CAMPAIGN, Stage

_NEW = 10_000
_LARGE = 10_000_000
_CHURN = 200_000
_BATCH = 100
_FIRSTS = 20
_COLUMNS = "campaign_id, lead_id, phone_number, contact_name, state_code, status, custom_fields"
_ROWS = f"""
INSERT INTO leadloop.leads ({_COLUMNS})
SELECT :campaign, lpad(i::text, 9, '0'), '+14155550123', 'Person ' || i, 'CA', :status,
       jsonb_build_object('plan', 'basic', 'number', i)
  FROM generate_series(CAST(:first AS bigint), :last) AS i
"""


def claim(stage: Stage, _: int, __: int) -> list[Section]:
    """Claims of a small table and of a large one, in turns."""
    with _databases(stage) as (small, large):
        _fill(small, 0)
        _fill(large, _LARGE - _NEW)
        calm = _in_turns(small, large, claims=_NEW // _BATCH)
        with large.transaction() as reader:
            reader.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.exec_driver_sql("SELECT 1 FROM leadloop.campaigns")
            _churn(large)
            _add(large, "new", 2 * _LARGE, _NEW)
            _add(small, "new", 2 * _LARGE, _NEW)
            churned = _in_turns(small, large, claims=_NEW // _BATCH)
            for database in (small, large):
                _add(database, "new", 3 * _LARGE, _FIRSTS * _BATCH)
            firsts = _firsts(small, large)
    figures = [
        Figure(what=f"{_NEW:,} leads in the table, all new", measured=_told(calm[0]), ratio="1"),
        _figure(f"{_LARGE:,} leads, {_NEW:,} of them new", calm),
        _figure(
            f"the same after {_CHURN:,} more were sent, a transaction open since before", churned
        ),
        _figure("the first claim of a run, which meets all that this transaction keeps", firsts),
    ]
    return [
        Section(
            title="The claim of a batch",
            conditions=f"Claims of {_BATCH}, {_NEW // _BATCH} of each table ({_FIRSTS} in the last"
            " row), in turns; medians.",
            figures=figures,
        )
    ]


@contextmanager
def _databases(stage: Stage) -> Iterator[tuple[Database, Database]]:
    names = ("bench_small", "bench_large")
    for name in names:
        schema.recreate_database(stage.database, name)
    small, large = (
        Database(stage.database.sibling_url(name, "postgresql+psycopg2"), pool_size=3)
        for name in names
    )
    with small, large:
        yield small, large
    with stage.database.autocommit() as connection:
        for name in names:
            connection.exec_driver_sql(f"DROP DATABASE {name}")


def _fill(database: Database, others: int) -> None:
    with database.transaction() as connection:
        schema.migrate_schema(connection)
    factories.add_campaign(database, CAMPAIGN)
    if others:
        _add(database, "created", 1, others)
    _add(database, "new", _LARGE, _NEW)
    with database.autocommit() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE leadloop.leads")
        connection.exec_driver_sql("CHECKPOINT")


def _add(database: Database, status: str, first: int, amount: int) -> None:
    sql.execute(
        database,
        _ROWS,
        campaign=CAMPAIGN,
        status=status,
        first=first,
        last=first + amount - 1,
    )


def _churn(database: Database) -> None:
    """Leads come and go as in a day: claimed, and recorded as created."""
    _add(database, "new", 4 * _LARGE, _CHURN)
    run_id = _run(database)
    claims = _Claims(run_id)
    with database.autocommit() as connection:
        for _ in range(_CHURN // 1000):
            claims.send(connection, 1000)


def _in_turns(small: Database, large: Database, *, claims: int) -> tuple[list[float], list[float]]:
    """What claims took, each of which goes on where the last one ended."""
    runs = [_Claims(_run(database)) for database in (small, large)]
    taken: tuple[list[float], list[float]] = ([], [])
    with small.autocommit() as first, large.autocommit() as second:
        for _ in range(claims):
            for connection, run, times in zip((first, second), runs, taken, strict=True):
                times.append(run.send(connection, _BATCH))
    return taken


def _firsts(small: Database, large: Database) -> tuple[list[float], list[float]]:
    """What the first claims of several runs took."""
    each = [_in_turns(small, large, claims=1) for _ in range(_FIRSTS)]
    return [took for (took,), _ in each], [took for _, (took,) in each]


class _Claims:
    """The claims of one run, each of which goes on where the last one ended, as a push does."""

    def __init__(self, run_id: int) -> None:
        self._run_id = run_id
        self._number = 0
        self._last = 0

    def send(self, connection: Connection, most: int) -> float:
        """Claim, and record as created; what the claim took, seconds."""
        self._number += 1
        began = time.monotonic()
        claimed = leads.claim_leads(
            connection,
            campaign_id=CAMPAIGN,
            run_id=self._run_id,
            claim_no=self._number,
            limit=most,
            after_seq=self._last,
        )
        took = time.monotonic() - began
        self._last = claimed.last_seq
        assert len(claimed.leads) == most
        batch = leads.ClaimRef(
            campaign_id=CAMPAIGN,
            run_id=self._run_id,
            claim_no=self._number,
            lead_ids=[lead.lead_id for lead in claimed.leads],
        )
        assert leads.record_created(connection, batch) == most
        return took


def _run(database: Database) -> int:
    query = """INSERT INTO leadloop.sync_runs (flow, campaign_id)
               VALUES ('push-leads', :campaign) RETURNING run_id"""
    run_id: int = sql.fetch_value(database, query, campaign=CAMPAIGN)
    return run_id


def _figure(what: str, taken: tuple[list[float], list[float]]) -> Figure:
    small, large = map(median, taken)
    return Figure(
        what=what,
        measured=_told(taken[1]),
        ratio=f"{large / small:.2f}",
        target="≤ 1.2",
        met=large / small <= 1.2,
    )


def _told(seconds: list[float]) -> str:
    return f"{median(seconds) * 1000:.1f} ms"
