"""`leadloop demo`: the next steps that it prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from leadloop.cli import demo, sample_leads
from leadloop.sandbox import Rules, run_sandbox

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


def test_the_next_steps_work_as_printed(tmp_path: Path) -> None:
    """Pasted into a terminal with no settings of ours, they send leads and show them."""
    leads = tmp_path / ".leadloop" / "demo" / "leads.csv"
    leads.parent.mkdir(parents=True)
    sample_leads.write_csv(leads, 20)
    printed = demo.format_next_steps()
    steps = printed[printed.index("  # in another one") :]
    with run_sandbox(Rules(rate_limit=None)) as vendor:
        ran = subprocess.run(
            ["sh", "-ec", steps.replace("http://127.0.0.1:8080", vendor.url)],
            cwd=tmp_path,
            env=_unset_environment(),
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        assert vendor.store.creations("TRY")
    assert "embedded Postgres in ./.leadloop" in ran.stderr


def _unset_environment() -> dict[str, str]:
    """Return the environment of a shell without our settings, with leadloop on its path."""
    ours = ("LEADLOOP_", "PREFECT_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}
