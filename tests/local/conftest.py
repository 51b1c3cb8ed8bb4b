"""Users of shared servers, as processes of their own."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from leadloop.local import postgres_data

_USER = Path(__file__).with_name("server_user.py")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(kw_only=True)
class User:
    """A process that uses a server, in a session of its own like a person's terminal."""

    process: subprocess.Popen[str]

    def address(self) -> str:
        """Which server it has; waits until it has one."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the user ended without a server"
        address: str = json.loads(line)
        return address

    def leave(self) -> None:
        """Let it give the server back; return when it has ended."""
        assert self.process.communicate(timeout=60)[0] == "left\n"

    def interrupt(self) -> None:
        """Ctrl-C in its terminal; return when it has ended."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.communicate(timeout=60)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.communicate(timeout=60)


@pytest.fixture
def start() -> Iterator[Callable[[str, Path], User]]:
    """Start a user of a kind of server in a directory."""
    users: list[User] = []

    def start(kind: str, directory: Path) -> User:
        process = subprocess.Popen(
            [sys.executable, _USER, kind, directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        users.append(User(process=process))
        return users[-1]

    yield start
    for user in users:
        if user.process.poll() is None:
            user.kill()


def data_of(directory: Path) -> Path:
    """Find the data of an embedded Postgres: in its directory or, by its note, elsewhere."""
    note = directory / postgres_data.NOTE
    return Path(json.loads(note.read_text())["data"]) if note.exists() else directory / "data"


def processes_of(directory: Path) -> list[str]:
    """The command lines and folders of all living processes that name `directory` or work in it.

    So do those of an embedded Postgres that work in its data.
    """
    lines = (_described(folder) for folder in Path("/proc").iterdir() if folder.name.isdigit())
    places = (str(directory), str(data_of(directory)))
    return [line for line in lines if any(place in line for place in places)]


def _described(process: Path) -> str:
    try:
        line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return f"{line}in {(process / 'cwd').readlink()}"
    except OSError:
        return ""


def require_closed(api_url: str) -> None:
    """Fail where a Prefect API reads or writes for strangers, or permits a foreign web page."""
    foreign = {"Origin": "http://foreign.example"}
    preflight = {**foreign, "Access-Control-Request-Method": "POST"}
    with httpx.Client(base_url=api_url, trust_env=False, timeout=60) as stranger:
        assert stranger.post("/block_documents/filter", json={}).status_code == 401
        assert stranger.post("/flows/", json={"name": "strange"}).status_code == 401
        assert stranger.post("/flows/", json={}, auth=("leadloop", "guessed")).status_code == 401
        answers = [
            stranger.get("/health", headers=foreign),
            stranger.options("/flows/", headers=preflight),
        ]
    assert [a.headers.get("Access-Control-Allow-Origin") for a in answers] == [None, None]


def require_hidden(secret: str, directory: Path) -> None:
    """Fail where a secret is in a process's arguments or in a file that others may read."""
    assert [line for line in processes_of(Path("/")) if secret in line] == []
    holding = [path for path in directory.rglob("*") if secret.encode() in _content(path)]
    assert {path.name for path in holding} <= {"server.json", "password"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return b""


def wait_until_gone(directory: Path) -> None:
    """Fail unless every process that names `directory`, or works in it, soon ends."""
    deadline = time.monotonic() + 30
    while left := processes_of(directory):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)
