"""What every command requires of the directory that it is run in."""

import os
import stat
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from leadloop.cli.environment import HOME
from leadloop.core.errors import UsageError
from leadloop.trusted_files import describe_user, require_private_directory, require_trusted

#: Commands that import neither Prefect nor Streamlit. The others also read settings of the
#: working directory that we cannot check at the moment of use.
_READ_OUR_SETTINGS_ONLY = {
    "forget",
    "init",
    "load",
    "metrics",
    "pause",
    "requeue",
    "resume",
    "status",
}


def require_trusted_directory(command: str) -> None:
    """Refuse settings that another user controls, and make `.leadloop` accessible to us alone.

    To be called before Prefect is imported: it reads these files then. Says on stderr which files
    of another user are used: root trusts the owner of its working directory.

    Raises:
        UsageError: one of the files, or the directory, is not trusted.
    """
    if command not in _READ_OUR_SETTINGS_ONLY:
        require_private_directory()
    used = [path for path in _find_settings_files() if os.path.lexists(path)]
    for path in used:
        require_trusted(path)
    if os.path.lexists(HOME):
        _secure_home()
        used.append(HOME)
    _report_foreign_owner(used)


def _find_settings_files() -> Iterator[Path]:
    yield from (Path(".env"), Path("prefect.toml"), Path(".streamlit"))
    project = Path("pyproject.toml")
    if _configures_prefect(project):
        yield project


def _configures_prefect(project: Path) -> bool:
    """Return whether a pyproject.toml has a table [tool.prefect], or may have one."""
    try:
        tool = tomllib.loads(project.read_text(encoding="utf-8")).get("tool")
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(tool, dict) and "prefect" in tool


def _secure_home() -> None:
    """Deny everybody else access to a `.leadloop` of ours; refuse one that is not trusted."""
    mode = HOME.stat().st_mode if _is_own_directory(HOME) else 0
    if mode & stat.S_IWGRP and not mode & stat.S_IWOTH:
        HOME.chmod(0o700)
        _require_no_foreign_entries()
    require_trusted(HOME)
    if mode & 0o077:
        HOME.chmod(0o700)


def _is_own_directory(directory: Path) -> bool:
    return directory.is_dir() and directory.stat().st_uid == os.geteuid()


def _require_no_foreign_entries() -> None:
    """Refuse what members of a group have put into `.leadloop` while they could write it."""
    for path in HOME.rglob("*"):
        owner = path.lstat().st_uid
        if owner not in (0, os.geteuid()):
            raise UsageError(
                f"{path.absolute()} belongs to {describe_user(owner)}, in a directory that a group"
                " could write: remove it, or work in another directory"
            )


def _report_foreign_owner(used: list[Path]) -> None:
    owners = {path: path.lstat().st_uid for path in used}
    foreign = [path for path, owner in owners.items() if owner not in (0, os.geteuid())]
    if foreign:
        names = ", ".join(map(str, foreign))
        owner = describe_user(owners[foreign[0]])
        print(
            f"leadloop: uses {names} of {owner}, who owns this directory and is trusted with it",
            file=sys.stderr,
        )
