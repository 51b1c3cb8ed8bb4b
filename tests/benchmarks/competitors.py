"""The programs that leadloop is compared with, run as processes through one interface.

See tests/benchmarks/peers/environments.py for the environment that they read and their output.
"""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import make_url

from leadloop.core.timestamps import to_epoch_ms
from tests import sql
from tests.benchmarks.bench_environment import (
    CAMPAIGN,
    TOKEN,
    BenchEnvironment,
    FinishedProcess,
    SandboxProcess,
    run_process,
)
from tests.benchmarks.peers.environments import ensure_environment, find_script

_HERE = Path(__file__).parent
_EPOCH = datetime.fromisoformat("1970-01-01T00:00Z")


@dataclass(frozen=True, kw_only=True)
class Competitor:
    """A script to compare with; a peer has its own virtual environment."""

    name: str
    script: Path
    is_peer: bool = False

    def run(
        self,
        bench: BenchEnvironment,
        sandbox: SandboxProcess,
        work: str,
        amount: int,
        *,
        campaign: str = CAMPAIGN,
        after: datetime = _EPOCH,
        before: datetime = _EPOCH,
    ) -> FinishedProcess:
        """Run its `poll` of the outcomes from `after` to `before`, or its `push` of `bench.leads`.

        Raises:
            RuntimeError: the process failed, or did only part of the work.
        """
        environment = self.prepare(bench, sandbox, campaign=campaign, after=after, before=before)
        ran = run_process(self.build_command(work), environment, bench.directory)
        if ran.output.get("rows") != _expected_rows(work, amount):
            raise RuntimeError(
                f"{self.name} {work} has not handled all of {amount:,} leads: {ran.output}"
            )
        return ran

    def build_command(self, work: str) -> list[str | Path]:
        """Return the command of a work; a peer's virtual environment is made if missing."""
        python = (
            ensure_environment(self.name, _venv_folder()) if self.is_peer else Path(sys.executable)
        )
        return [python, self.script, work]

    def prepare(
        self,
        bench: BenchEnvironment,
        sandbox: SandboxProcess,
        *,
        campaign: str = CAMPAIGN,
        after: datetime = _EPOCH,
        before: datetime = _EPOCH,
    ) -> dict[str, str]:
        """Drop its schema, empty its folder, and return its environment variables."""
        scratch = bench.directory / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        sql.execute(bench.database, f"DROP SCHEMA IF EXISTS bench_{self.name} CASCADE")
        return {
            **bench.build_bare_environment(),
            "BENCH_DATABASE_URL": _to_libpq_url(bench.database_url),
            "BENCH_API_URL": sandbox.url,
            "BENCH_TOKEN": TOKEN,
            "BENCH_CAMPAIGN": campaign,
            "BENCH_AFTER": str(to_epoch_ms(after)),
            "BENCH_BEFORE": str(to_epoch_ms(before)),
            "BENCH_LEADS": "bench.leads",
            "BENCH_SCHEMA": f"bench_{self.name}",
            "BENCH_WORK": str(scratch),
        }


BASELINE = Competitor(name="baseline", script=_HERE / "baseline.py")
YARDSTICK = Competitor(name="yardstick", script=_HERE / "yardstick.py")
TUTORIAL = Competitor(name="tutorial", script=_HERE / "tutorial.py")
LISTENER = Competitor(name="listener", script=_HERE / "listener.py")
DLT, DRT, SINGER, PGQUEUER, DBOS = (
    Competitor(name=name, script=find_script(name), is_peer=True)
    for name in ("dlt", "drt", "singer", "pgqueuer", "dbos")
)


def _expected_rows(work: str, amount: int) -> Mapping[str, int]:
    return {"leads": amount} if work == "push" else {"outcomes": amount, "attempts": 2 * amount}


def _to_libpq_url(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _venv_folder() -> Path:
    """Return the folder of the peers' virtual environments, kept beside ours for reuse."""
    return Path(sys.prefix).parent / ".venv-bench"
