"""What leadloop is compared with, each run as a process of its own through one interface.

What they read from the environment and print is told in tests/bench/peers/environments.py.
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
from tests.bench.peers.environments import environment, script
from tests.bench.stage import CAMPAIGN, TOKEN, Ran, Stage, Vendor, run

_HERE = Path(__file__).parent
_EPOCH = datetime.fromisoformat("1970-01-01T00:00Z")


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """A script to compare with; a peer has an environment of its own."""

    name: str
    script: Path
    is_peer: bool = False

    def run(
        self,
        stage: Stage,
        vendor: Vendor,
        work: str,
        amount: int,
        *,
        campaign: str = CAMPAIGN,
        after: datetime = _EPOCH,
        before: datetime = _EPOCH,
    ) -> Ran:
        """Have it `poll` what was processed from `after` to `before`, or `push` `bench.leads`.

        Raises:
            RuntimeError: it failed, or has not done all of the work.
        """
        python = environment(self.name, _venvs()) if self.is_peer else Path(sys.executable)
        scratch = stage.directory / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        sql.execute(stage.database, f"DROP SCHEMA IF EXISTS bench_{self.name} CASCADE")
        given = {
            "BENCH_DATABASE_URL": _libpq(stage.database_url),
            "BENCH_API_URL": vendor.url,
            "BENCH_TOKEN": TOKEN,
            "BENCH_CAMPAIGN": campaign,
            "BENCH_AFTER": str(to_epoch_ms(after)),
            "BENCH_BEFORE": str(to_epoch_ms(before)),
            "BENCH_LEADS": "bench.leads",
            "BENCH_SCHEMA": f"bench_{self.name}",
            "BENCH_WORK": str(scratch),
        }
        ran = run([python, self.script, work], {**stage.bare(), **given}, stage.directory)
        if ran.said.get("rows") != _all(work, amount):
            raise RuntimeError(f"{self.name} {work} was to do {amount:,} and said {ran.said}")
        return ran


FLOOR = Yardstick(name="floor", script=_HERE / "floor.py")
TUTORIAL = Yardstick(name="tutorial", script=_HERE / "tutorial.py")
DLT, DRT, SINGER = (
    Yardstick(name=name, script=script(name), is_peer=True) for name in ("dlt", "drt", "singer")
)


def _all(work: str, amount: int) -> Mapping[str, int]:
    return {"leads": amount} if work == "push" else {"outcomes": amount, "attempts": 2 * amount}


def _libpq(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _venvs() -> Path:
    """Beside ours, so that they are made once."""
    return Path(sys.prefix).parent / ".venv-bench"
