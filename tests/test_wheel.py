"""What a release holds: the sdist, and the wheel in an environment without a checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from leadloop import __version__
from leadloop.deployments import PREFECT
from tests.docs.test_paths import find_named_guides

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

_CHECKOUT = Path(__file__).parents[1]
_LEADLOOP = "import sys; from leadloop.cli.main import main; sys.argv[0] = 'leadloop'; main()"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an sdist, and of a wheel that is built from the unpacked sdist."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-P", "-m", "hatchling", "build", "-t", "sdist", "-d", folder)
    with tarfile.open(_find(folder, "*.tar.gz")) as sdist:
        sdist.extractall(folder, filter="data")
    unpacked = folder / f"leadloop-{__version__}"
    build = (sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    _run(*build, directory=unpacked)
    return folder


class Installed:
    """A virtual environment with the wheel; the dependencies are those of the tests."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        _run(sys.executable, "-P", "-m", "venv", "--without-pip", folder / "venv")
        paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
        self.packages = Path(sysconfig.get_path("purelib", "venv", paths))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self.packages)
        # A path line only: the .pth file there that names the checkout is not read.
        (self.packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.directory = folder / "empty"
        self.directory.mkdir()

    def run(self, *arguments: str | Path, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run Python in an empty directory, without the checkout on its path."""
        environment = {**os.environ, **more}
        environment.pop("PYTHONPATH", None)
        return subprocess.run(
            [self.folder / "venv" / "bin" / "python", "-P", *arguments],
            cwd=self.directory,
            env={**environment, "COLUMNS": "300"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def leadloop(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run the command as its entry point does."""
        return self.run("-c", _LEADLOOP, *arguments, **more)


@pytest.fixture
def installed(built: Path, tmp_path: Path) -> Installed:
    """An environment of this test's own."""
    return Installed(tmp_path, _find(built, "*.whl"))


def _run(*command: str | Path, directory: Path = _CHECKOUT) -> None:
    subprocess.run(command, check=True, cwd=directory, stdout=subprocess.DEVNULL)


def _find(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_the_sdist_is_the_whole_repository(built: Path) -> None:
    """Whoever unpacks it can run `make demo` and the tests."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=_CHECKOUT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    with tarfile.open(_find(built, "*.tar.gz")) as sdist:
        packed = {name.partition("/")[2] for name in sdist.getnames()}
    assert packed - {"PKG-INFO"} == {name for name in tracked if (_CHECKOUT / name).exists()}


def test_the_wheel_holds_every_file_of_the_packages(built: Path) -> None:
    """Data too; and at the top level nothing but the four packages."""
    names = {
        str(file.relative_to(_CHECKOUT))
        for package in ("leadloop", "flows", "tasks", "db")
        for file in (_CHECKOUT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(_find(built, "*.whl")) as wheel:
        packed = set(wheel.namelist())
    assert names <= packed
    tops = {name.split("/")[0] for name in packed}
    assert tops == {"leadloop", "flows", "tasks", "db", f"leadloop-{__version__}.dist-info"}


def test_documents_that_messages_name_are_in_the_wheel(installed: Installed) -> None:
    """`leadloop --help` names the folder; every guide that code or automations name is there."""
    ran = installed.leadloop("--help")
    assert ran.returncode == 0, ran.stderr
    place = installed.packages / "leadloop" / "share"
    assert str(place) in re.sub(r"[\s│]", "", ran.stdout)
    guides = {guide.partition("#")[0] for _, guide in find_named_guides()}
    assert sorted(guide for guide in guides if not (place / guide).exists()) == []
    for name in ("automations.yaml", "prefect.yaml", "README.md", "CHANGELOG.md"):
        assert (place / name).read_bytes() == (_CHECKOUT / name).read_bytes()


def test_the_schema_is_created_and_a_campaign_is_loaded(
    installed: Installed, empty_database_url: str
) -> None:
    """The SQL of the schema is inside."""
    (installed.directory / "leads.csv").write_text("lead_id,phone_number\nA-1,+14155550123\n")
    url = {"LEADLOOP_DATABASE_URL": empty_database_url}
    assert installed.leadloop("--version").stdout == f"leadloop {__version__}\n"
    for arguments in (("init",), ("load", "leads.csv", "--campaign", "C1"), ("status",)):
        ran = installed.leadloop(*arguments, **url)
        assert (ran.returncode, "Traceback" in ran.stderr) == (0, False), ran.stderr


@pytest.mark.usefixtures("work_pools")
def test_the_deployments_are_put_on_a_server(installed: Installed, prefect: str) -> None:
    """From an environment without a checkout; Prefect can import the flow of each deployment."""
    ran = installed.leadloop("deploy", PREFECT_API_URL=prefect)
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False), ran.stderr
    inspected = installed.run(
        *PREFECT[2:], "deployment", "inspect", "push-leads/default", PREFECT_API_URL=prefect
    )
    assert "flows.push.push_leads" in inspected.stdout
    imported = "import flows.push, tasks.push; print(flows.push.__file__)"
    assert installed.run("-c", imported).stdout.startswith(str(installed.packages))


def test_a_package_that_replaced_files_is_named(installed: Installed) -> None:
    """Another distribution was installed over leadloop: one line names it, no traceback."""
    record = installed.packages / "other-1.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("db/__init__.py,,\ndb/database.py,,\n")
    record.with_name("METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    assert installed.leadloop("--version").returncode == 0
    (installed.packages / "db" / "database.py").write_text("")
    ran = installed.leadloop("--version")
    (line,) = ran.stderr.splitlines()
    assert ran.returncode == 2
    assert "the package db holds files of another distribution (other)" in line
