"""Checks of the working directory before a command runs: who owns its settings files."""

import os
import stat
import sys
import tomllib
from pathlib import Path

from leadloop.cli.environment import HOME
from leadloop.core.errors import UsageError
from leadloop.trusted_files import describe_user, require_private_directory, require_trusted

#: Commands that import neither Prefect nor Streamlit. The other commands read further settings in
#: the working directory, which we cannot check at the moment of use.
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
    """Refuse settings files that another user controls, and make `.leadloop` private.

    Call this before Prefect is imported, since the import reads these files. Root trusts the owner
    of the working directory; a line on stderr then names the files of that owner.

    Raises:
        UsageError: one of the files, or the directory, is not trusted.
    """
    if command not in _READ_OUR_SETTINGS_ONLY:
        require_private_directory()
    settings_files = [Path(".env"), Path("prefect.toml"), Path(".streamlit")]
    if _configures_prefect(Path("pyproject.toml")):
        settings_files.append(Path("pyproject.toml"))
    used = [path for path in settings_files if os.path.lexists(path)]
    for path in used:
        require_trusted(path)
    if os.path.lexists(HOME):
        _secure_home()
        used.append(HOME)
    owners = {path: path.lstat().st_uid for path in used}
    foreign = [path for path, owner in owners.items() if owner not in (0, os.geteuid())]
    if foreign:
        names = ", ".join(map(str, foreign))
        owner = describe_user(owners[foreign[0]])
        print(
            f"leadloop: uses {names} of {owner}, who owns this directory and is trusted with it",
            file=sys.stderr,
        )


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
    """Make our own `.leadloop` private; refuse a `.leadloop` that is not trusted."""
    is_ours = HOME.is_dir() and HOME.stat().st_uid == os.geteuid()
    mode = HOME.stat().st_mode if is_ours else 0
    if mode & stat.S_IWGRP and not mode & stat.S_IWOTH:
        HOME.chmod(0o700)
        # Members of the group could write it until now.
        for path in HOME.rglob("*"):
            owner = path.lstat().st_uid
            if owner not in (0, os.geteuid()):
                raise UsageError(
                    f"{path.absolute()} belongs to {describe_user(owner)}, in a directory that a"
                    " group could write: remove it, or work in another directory"
                )
    require_trusted(HOME)
    if mode & 0o077:
        HOME.chmod(0o700)
