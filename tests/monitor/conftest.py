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
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: The Prefect UI that runs link to; no server listens on it, and no test follows the links.
PREFECT_URL = "http://127.0.0.1:4299"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield a browser; skip the test if there is none, or fail it if BROWSER_REQUIRED is set."""
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        reason = "no browser: apt-get install chromium"
        if os.environ.get("BROWSER_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        # As root in a container, Chromium has no sandbox and little shared memory.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        # Names for a proxy, and for strangers.
        arguments += ["--host-resolver-rules=MAP *.test 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def nginx() -> str:
    """Return the program; skip the test if there is none, or fail it if NGINX_REQUIRED is set."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is not None:
        return program
    reason = "no nginx: apt-get install nginx-light"
    if os.environ.get("NGINX_REQUIRED"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def page_database(postgres: str) -> Iterator[Database]:
    """Yield a database for the pages of one test module; see `seed_database`."""
    url = make_url(postgres).set(database="page").render_as_string(hide_password=False)
    with Database(postgres, pool_size=1) as server, server.autocommit() as connection:
        connection.execute(text("CREATE DATABASE page"))
        with Database(url, pool_size=2) as database:
            yield database
        connection.execute(text("DROP DATABASE page WITH (FORCE)"))


@pytest.fixture(scope="module")
def page_url(page_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a page that refreshes from `page_database` every three seconds."""
    url = page_database.sibling_url("page", "postgresql")
    with serve_monitor(url, tmp_path_factory.mktemp("page")) as address:
        yield address


@contextmanager
def serve_monitor(database_url: str, directory: Path, **environment: str) -> Iterator[str]:
    """Run `leadloop monitor` for the block; Ctrl-C must end it with exit 0, even with viewers."""
    with subprocess.Popen(
        [_LEADLOOP, "monitor", "--port", "0", "--refresh", "3"],
        cwd=directory,
        env={
            **os.environ,
            "LEADLOOP_DATABASE_URL": database_url,
            "PREFECT_API_URL": f"{PREFECT_URL}/api",
            **environment,
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


def seed_database(database: Database, seed: Callable[[Database], None] | None) -> None:
    """Replace the contents of the database by a seed; None: drop the schema too."""

    def clear(connection: Connection) -> None:
        drop_schema(connection)
        if seed is not None:
            migrate_schema(connection)

    # Retry deadlocks: a page reads at the same time and may lock two views in the other order.
    database.retry(clear)
    if seed is not None:
        seed(database)
