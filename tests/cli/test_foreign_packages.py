"""Packages of other projects with the names of leadloop's are named in one line."""

import os
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command

_CHECKOUT = Path(__file__).parents[2]


def _install_other(directory: Path, package: str) -> None:
    """Install a distribution `other` with a package into a folder."""
    files = {
        f"{package}/__init__.py": "",
        "other-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: other\nVersion: 1.0\n",
        "other-1.0.dist-info/RECORD": f"{package}/__init__.py,,\n",
    }
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)


@pytest.mark.parametrize("package", ["flows", "tasks", "db"])
def test_another_package_is_in_the_way(leadloop: Command, tmp_path: Path, package: str) -> None:
    """One line names the package, its file and its distribution, instead of a traceback."""
    _install_other(tmp_path / "site", package)
    path = os.pathsep.join([str(tmp_path / "site"), str(_CHECKOUT)])
    ran = leadloop("status", PYTHONPATH=path)
    (line,) = ran.err.splitlines()
    assert (ran.code, ran.out) == (2, "")
    place = tmp_path / "site" / package / "__init__.py"
    assert f"another package {package} is in the way of leadloop's: {place} (other)." in line
    assert "separate virtual environment" in line


def test_a_module_is_in_the_way(leadloop: Command, tmp_path: Path) -> None:
    """A file tasks.py on Python's path counts too; it has no distribution."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tasks.py").touch()
    path = os.pathsep.join([str(tmp_path / "site"), str(_CHECKOUT)])
    ran = leadloop("--version", PYTHONPATH=path)
    (line,) = ran.err.splitlines()
    assert ran.code == 2
    assert f"{tmp_path / 'site' / 'tasks.py'}. Remove it" in line


def test_doctor_names_a_distribution_with_the_same_files(
    invoke: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as leadloop's own files are imported it is a warning."""
    assert "packages: " not in invoke("doctor").out
    _install_other(tmp_path, "db")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (line,) = [line for line in invoke("doctor").out.splitlines() if "packages: " in line]
    assert line.startswith("warn packages: the package db holds files of another distribution (ot")
