"""What every command requires of the directory that it is run in."""

import os
import tomllib
from pathlib import Path

from leadloop.cli.stage import HOME
from leadloop.trusted_files import require_trusted


def require_trusted_directory() -> None:
    """Refuse settings that another user controls, and make `.leadloop` accessible to us alone.

    To be called before Prefect is imported: it reads these files then.

    Raises:
        UsageError: one of the files is not trusted.
    """
    for name in (".env", "prefect.toml"):
        require_trusted(Path(name))
    project = Path("pyproject.toml")
    if _configures_prefect(project):
        require_trusted(project)
    require_trusted(HOME)
    _narrow(HOME)


def _configures_prefect(project: Path) -> bool:
    """Return whether a pyproject.toml has a table [tool.prefect], or may have one."""
    try:
        tool = tomllib.loads(project.read_text(encoding="utf-8")).get("tool")
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(tool, dict) and "prefect" in tool


def _narrow(directory: Path) -> None:
    """Deny everybody else access to a directory of ours."""
    if directory.is_dir():
        status = directory.stat()
        if status.st_uid == os.geteuid() and status.st_mode & 0o077:
            directory.chmod(0o700)
