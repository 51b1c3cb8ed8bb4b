"""The duration of a claim: in a large table, and after much churn."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from db import leads, schema
from db.database import Connection, Database
from leadloop.core.accounts import DEFAULT_ACCOUNT
from tests import factories, sql
from tests.benchmarks.bench_environment import CAMPAIGN, BenchEnvironment
from tests.benchmarks.report import Figure, Section

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


def measure_claims(bench: BenchEnvironment, _: int, __: int) -> list[Section]:
    """Measure claims of a small table and of a large one, in turns."""
    with _create_databases(bench) as (small, large):
        _fill_leads(small, 0)
        _fill_leads(large, _LARGE - _NEW)
        calm = _measure_in_turns(small, large, claims=_NEW // _BATCH)
        with large.transaction() as reader:
            reader.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.exec_driver_sql("SELECT 1 FROM leadloop.campaigns")
            _churn_leads(large)
            _add_leads(large, "new", 2 * _LARGE, _NEW)
            _add_leads(small, "new", 2 * _LARGE, _NEW)
            churned = _measure_in_turns(small, large, claims=_NEW // _BATCH)
            for database in (small, large):
                _add_leads(database, "new", 3 * _LARGE, _FIRSTS * _BATCH)
            firsts = _measure_first_claims(small, large)
    figures = [
        Figure(
            what=f"{_NEW:,} leads in the table, all new",
            measured=_format_median(calm[0]),
            ratio="1",
        ),
        _build_figure(f"{_LARGE:,} leads, {_NEW:,} of them new", calm),
        _build_figure(
            f"the same after {_CHURN:,} more were sent, a transaction open since before", churned
        ),
        _build_figure(
            "the first claim of a run, which meets all that this transaction keeps", firsts
        ),
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
def _create_databases(bench: BenchEnvironment) -> Iterator[tuple[Database, Database]]:
    names = ("bench_small", "bench_large")
    for name in names:
        schema.recreate_database(bench.database, name)
    small, large = (
        Database(bench.database.sibling_url(name, "postgresql+psycopg2"), pool_size=3)
        for name in names
    )
    with small, large:
        yield small, large
    with bench.database.autocommit() as connection:
        for name in names:
            connection.exec_driver_sql(f"DROP DATABASE {name}")


def _fill_leads(database: Database, others: int) -> None:
    with database.transaction() as connection:
        schema.migrate_schema(connection)
    factories.add_campaign(database, CAMPAIGN)
    if others:
        _add_leads(database, "created", 1, others)
    _add_leads(database, "new", _LARGE, _NEW)
    with database.autocommit() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE leadloop.leads")
        connection.exec_driver_sql("CHECKPOINT")


def _add_leads(database: Database, status: str, first: int, amount: int) -> None:
    sql.execute(
        database,
        _ROWS,
        campaign=CAMPAIGN,
        status=status,
        first=first,
        last=first + amount - 1,
    )


def _churn_leads(database: Database) -> None:
    """Insert leads, claim them and record them as created, as in a day of work."""
    _add_leads(database, "new", 4 * _LARGE, _CHURN)
    run_id = _start_run(database)
    claims = _Claims(run_id)
    with database.autocommit() as connection:
        for _ in range(_CHURN // 1000):
            claims.claim_and_record(connection, 1000)


def _measure_in_turns(
    small: Database, large: Database, *, claims: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of each claim; a claim continues after the previous one."""
    runs = [_Claims(_start_run(database)) for database in (small, large)]
    taken: tuple[list[float], list[float]] = ([], [])
    with small.autocommit() as first, large.autocommit() as second:
        for _ in range(claims):
            for connection, run, times in zip((first, second), runs, taken, strict=True):
                times.append(run.claim_and_record(connection, _BATCH))
    return taken


def _measure_first_claims(small: Database, large: Database) -> tuple[list[float], list[float]]:
    """Return the seconds of the first claims of several runs."""
    each = [_measure_in_turns(small, large, claims=1) for _ in range(_FIRSTS)]
    return [took for (took,), _ in each], [took for _, (took,) in each]


class _Claims:
    """The claims of one run; each continues after the previous one, as in a push."""

    def __init__(self, run_id: int) -> None:
        self._run_id = run_id
        self._number = 0
        self._last = 0

    def claim_and_record(self, connection: Connection, most: int) -> float:
        """Claim a batch and record it as created; return the seconds of the claim."""
        self._number += 1
        began = time.monotonic()
        claimed = leads.claim_leads(
            connection,
            campaign_id=CAMPAIGN,
            run_id=self._run_id,
            claim_no=self._number,
            limit=most,
            after_seq=self._last,
            account=DEFAULT_ACCOUNT,
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


def _start_run(database: Database) -> int:
    query = """INSERT INTO leadloop.sync_runs (flow, campaign_id)
               VALUES ('push-leads', :campaign) RETURNING run_id"""
    run_id: int = sql.fetch_value(database, query, campaign=CAMPAIGN)
    return run_id


def _build_figure(what: str, taken: tuple[list[float], list[float]]) -> Figure:
    small, large = map(median, taken)
    return Figure(
        what=what,
        measured=_format_median(taken[1]),
        ratio=f"{large / small:.2f}",
        target="≤ 1.2",
        met=large / small <= 1.2,
    )


def _format_median(seconds: list[float]) -> str:
    return f"{median(seconds) * 1000:.1f} ms"
