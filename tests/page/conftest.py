"""The page in a real browser: the system's Chromium, and `leadloop monitor` as a process."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import Connection, make_url, text

from db.database import Database
from db.schema import drop_schema, migrate_schema

_LEADLOOP = str(Path(sys.executable).with_name("leadloop"))
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Where runs are said to be shown; nobody listens there, and nobody calls it.
PREFECT = "http://127.0.0.1:4299"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser; where there is none, the test is skipped, unless BROWSER_REQUIRED is set."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        said = "no browser: apt-get install chromium"
        if os.environ.get("BROWSER_REQUIRED"):
            pytest.fail(said)
        pytest.skip(said)
    with sync_playwright() as playwright:
        # In a container as root there is no sandbox to be had, and little shared memory.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        opened = playwright.chromium.launch(executable_path=program, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_database(postgres: str) -> Iterator[Database]:
    """A database for the page of this module; it holds what the last scene has put in."""
    url = make_url(postgres).set(database="page").render_as_string(hide_password=False)
    with Database(postgres, pool_size=1) as server, server.autocommit() as connection:
        connection.execute(text("CREATE DATABASE page"))
        with Database(url, pool_size=2) as opened:
            yield opened
        connection.execute(text("DROP DATABASE page WITH (FORCE)"))


@pytest.fixture(scope="module")
def page_url(page_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page that looks at that database every three seconds."""
    url = page_database.sibling_url("page", "postgresql")
    with serving(url, tmp_path_factory.mktemp("page")) as address:
        yield address


@pytest.fixture(scope="module")
def unreachable_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page whose database is not there."""
    nowhere = "postgresql://somebody@127.0.0.1:1/nothing"
    with serving(nowhere, tmp_path_factory.mktemp("page")) as address:
        yield address


@contextmanager
def serving(database_url: str, directory: Path) -> Iterator[str]:
    """`leadloop monitor` for the block, ended with Ctrl-C: exit 0, whoever is looking."""
    with subprocess.Popen(
        [_LEADLOOP, "monitor", "--port", "0", "--refresh", "3"],
        cwd=directory,
        env={
            **os.environ,
            "LEADLOOP_DATABASE_URL": database_url,
            "PREFECT_API_URL": f"{PREFECT}/api",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line.startswith("The page: "), line
            yield line.removeprefix("The page: ").strip()
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(60)
        assert code == 0


def fill(database: Database, scene: Callable[[Database], None] | None) -> None:
    """Put a scene in place of what there was; None: not even a schema."""

    def clear(connection: Connection) -> None:
        drop_schema(connection)
        if scene is not None:
            migrate_schema(connection)

    # The page reads meanwhile, and may lock two views the other way round.
    database.retry(clear)
    if scene is not None:
        scene(database)
