"""Commands in a directory in which another user of the machine has put files."""

import os
import stat
from pathlib import Path

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories
from tests.cli.conftest import Command

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")

_OTHER, _PERSON = 65_534, 54_321


def _put(path: Path, text: str, owner: int) -> None:
    path.write_text(text)
    os.chown(path, owner, owner)


@as_root
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".env", "LEADLOOP_PAGE_SIZE=7\n"),
        ("prefect.toml", "[api]\n"),
        ("pyproject.toml", "[tool.prefect]\n"),
        ("pyproject.toml", "no TOML"),
    ],
)
def test_settings_of_another_user(
    invoke: Command,
    leadloop: Command,
    environment: Path,
    database: Database,
    vendor: SandboxHandle,
    prefect: str,
    name: str,
    text: str,
) -> None:
    """One line that names the file, exit 2, and nothing is sent; once it is ours, it works."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    _put(environment / name, text, _OTHER)
    ran = invoke("push", PREFECT_API_URL=prefect)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert f"{environment / name} belongs to nobody (uid {_OTHER})" in ran.err
    assert vendor.store.leads(factories.CAMPAIGN) == []
    if text != "no TOML":
        os.chown(environment / name, 0, 0)
        # In a process, which reads the file when it imports Prefect.
        assert leadloop("push", "--json", PREFECT_API_URL=prefect).last["created"] == 1


@as_root
def test_another_users_embedded_database(leadloop: Command, environment: Path) -> None:
    """Nothing is read from a `.leadloop` that somebody else has prepared."""
    (environment / ".leadloop").mkdir()
    os.chown(environment / ".leadloop", _OTHER, _OTHER)
    ran = leadloop("status")
    assert (ran.code, ran.out) == (2, "")
    assert f"{environment / '.leadloop'} belongs to nobody" in ran.err


@as_root
def test_what_needs_no_trust(invoke: Command, environment: Path) -> None:
    """Other tools' settings do not matter, and help is given anywhere."""
    _put(environment / "pyproject.toml", "[tool.other]\n", _OTHER)
    assert invoke("status").code == 0
    _put(environment / ".env", "", _OTHER)
    assert invoke("status").code == 2
    assert invoke("status", "--help").code == 0
    assert invoke("--help").code == 0
    assert invoke("--version").code == 0
    assert "loopback" not in invoke("sandbox", "--rule", "nonsense").err
    assert "belongs to" not in invoke("sandbox", "--rule", "nonsense").err


@as_root
def test_root_in_a_mounted_checkout(invoke: Command, environment: Path) -> None:
    """Where directory and settings belong to one user outside of the container, root uses them."""
    _put(environment / ".env", "LEADLOOP_PAGE_SIZE=731\n", _PERSON)
    assert invoke("status").code == 2
    os.chown(environment, _PERSON, _PERSON)
    ran = invoke("doctor", "--json")
    settings = next(check for check in ran.last["checks"] if check["check"] == "settings")
    assert "page_size from .env" in settings["detail"]
    assert f"uses .env of uid {_PERSON}, who owns this directory" in ran.err


@as_root
@pytest.mark.parametrize("command", ["push", "plan", "monitor", "doctor", "deploy", "demo"])
@pytest.mark.parametrize("mode", [0o1777, 0o777])
def test_a_directory_in_which_others_may_put_settings(
    invoke: Command, environment: Path, command: str, mode: int
) -> None:
    """Nobody can add a `prefect.toml` after the check: such a directory is refused, also /tmp."""
    environment.chmod(mode)
    os.chown(environment, 0, _PERSON)
    ran = invoke(command)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert f"{environment} may be written by" in ran.err
    assert invoke("status").code == 0
    assert not (environment / ".leadloop").exists()
    assert "may be written by" in invoke("status", LEADLOOP_DATABASE_URL="embedded").err


@as_root
def test_streamlits_settings_of_another_user(invoke: Command, environment: Path) -> None:
    """The page is not served beside a `.streamlit` that somebody else has put there."""
    (environment / ".streamlit").mkdir()
    os.chown(environment / ".streamlit", _OTHER, _OTHER)
    ran = invoke("monitor")
    assert ran.code == 2
    assert f"{environment / '.streamlit'} belongs to nobody" in ran.err


@as_root
def test_a_shared_group_loses_access(invoke: Command, environment: Path) -> None:
    """A `.leadloop` that was made in a team's setgid folder is narrowed, not refused."""
    home = environment / ".leadloop"
    (home / "pg").mkdir(parents=True)
    os.chown(home, 0, _PERSON)
    home.chmod(0o2775)
    assert invoke("status").code == 0
    assert home.stat().st_mode & 0o777 == 0o700
    home.chmod(0o2775)
    os.chown(home / "pg", _PERSON, _PERSON)
    ran = invoke("status")
    assert ran.code == 2
    assert f"{home / 'pg'} belongs to uid {_PERSON}" in ran.err


@as_root
@pytest.mark.parametrize("name", ["log", "alive.lock", "users.lock", "join.lock"])
def test_a_link_in_place_of_a_log(invoke: Command, environment: Path, name: str) -> None:
    """The owner of a mounted checkout cannot have root write to a file elsewhere."""
    target = environment / "target"
    target.write_text("precious")
    (environment / ".leadloop" / "pg").mkdir(parents=True)
    (environment / ".leadloop" / "pg" / name).symlink_to(target)
    for path in (environment, environment / ".leadloop", environment / ".leadloop" / "pg"):
        os.chown(path, _PERSON, _PERSON)
    ran = invoke("init", LEADLOOP_DATABASE_URL="embedded")
    assert ran.code == 2
    assert f"{name}: Too many levels of symbolic links" in ran.err
    assert target.read_text() == "precious"


@pytest.mark.parametrize(("mode", "code"), [(0o666, 2), (0o664, 0), (0o644, 0)])
def test_settings_that_others_may_write(
    invoke: Command, environment: Path, mode: int, code: int
) -> None:
    """Files of umask 002 work; what everybody may write is refused, with the command to run."""
    (environment / ".env").write_text("LEADLOOP_PAGE_SIZE=7\n")
    (environment / ".env").chmod(mode)
    ran = invoke("status")
    assert ran.code == code
    assert ("`chmod go-w`" in ran.err) is (code == 2)


def test_what_runs_keep_is_ours_alone(leadloop: Command, environment: Path) -> None:
    """`.leadloop` is made 0700 whatever the umask; one of an earlier version is narrowed."""
    home = environment / ".leadloop"
    umask = os.umask(0o002)
    try:
        leadloop("status", LEADLOOP_DATABASE_URL="embedded")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    home.chmod(0o775)
    assert leadloop("status").code == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_module_of_prefects_name_in_the_directory(
    leadloop: Command, environment: Path, database: Database
) -> None:
    """What lies in the working directory is not imported in place of Prefect, nor by its server."""
    factories.add_campaign(database)
    for name in ("prefect.py", "leadloop.py", "uvicorn.py"):
        (environment / name).write_text("open('imported', 'w').close()\nraise SystemExit(9)\n")
    assert leadloop("push").code == 0
    assert not (environment / "imported").exists()
