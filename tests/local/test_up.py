"""`leadloop up`: what a person who wants to look sees, and what is left when they go."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.local.conftest import (
    free_port,
    processes_of,
    require_closed,
    require_hidden,
    wait_until_gone,
)

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

_LEADLOOP = str(Path(sys.executable).with_name("leadloop"))


def test_all_of_it_runs_and_all_of_it_goes(tmp_path: Path) -> None:
    """The pages are served, what is printed lets another terminal join in, Ctrl-C ends all."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    _plant_modules(here)
    with _up(here) as (process, told):
        addresses = dict(re.findall(r"^(\w+): +(\S+)", told, re.MULTILINE))
        assert "Streamlit" in httpx.get(addresses["Page"], trust_env=False, timeout=60).text
        assert "Prefect" in httpx.get(addresses["Prefect"], trust_env=False, timeout=60).text
        assert httpx.get(
            f"{addresses['Sandbox']}/openapi.json", trust_env=False, timeout=60
        ).is_success
        require_closed(f"{addresses['Prefect']}/api")
        (shown,) = re.findall(r"its password: cat (\S+)\)", told)
        password = Path(shown).read_text().strip().partition(":")[2]
        require_hidden(password, here)
        assert password not in told
        exports = "\n".join(re.findall(r"^ +export .*$", told, re.MULTILINE))
        (push,) = re.findall(r"^ +(.* push .*)$", told, re.MULTILINE)
        joined = subprocess.run(
            ["sh", "-ec", f"{exports}\n{push} --json"],
            cwd=elsewhere,
            env=_bare(),
            capture_output=True,
            text=True,
        )
        assert joined.returncode == 0, joined.stderr
        assert password not in joined.stdout + joined.stderr
        assert list(elsewhere.iterdir()) == []
        assert processes_of(here)
        # As a terminal does: everybody in its group hears it.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
    wait_until_gone(here)
    assert list(here.rglob("imported")) == []


def _plant_modules(directory: Path) -> None:
    """Put modules that must not be imported into every folder in which a server works."""
    up = directory / ".leadloop" / "up"
    ours = ("leadloop.py", "streamlit.py", "flows.py")
    # Prefect's migrations put the server's folder, which is ours alone, on its path: what it has
    # not imported by then would be found there.
    planted = {
        directory: ours,
        up: ours,
        up / "worker": ours,
        up / "page": ours,
        up / "prefect": (),
    }
    for folder, names in planted.items():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("prefect.py", "uvicorn.py", *names):
            (folder / name).write_text("open('imported', 'w').close()\nraise SystemExit(9)\n")


@contextmanager
def _up(directory: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`leadloop up` in a directory and a terminal of its own, and what it says when it is up."""
    ports = ["--port", str(free_port()), "--page-port", str(free_port())]
    with subprocess.Popen(
        [_LEADLOOP, "up", *ports],
        cwd=directory,
        env={**_bare(), "COLUMNS": "40"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        told = []
        for line in process.stdout:
            told.append(line)
            if line.startswith("Ctrl-C"):
                break
        try:
            yield process, "".join(told)
        finally:
            process.send_signal(signal.SIGTERM)


def _bare() -> dict[str, str]:
    """The environment of a shell in which nothing of ours is set."""
    ours = ("LEADLOOP_", "PREFECT_")
    return {name: text for name, text in os.environ.items() if not name.startswith(ours)}
