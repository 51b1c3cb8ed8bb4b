"""Packages of other projects that are named like leadloop's: `flows`, `tasks` and `db`.

These names are general, so leadloop needs a separate environment.
"""

import importlib.util
from pathlib import Path

_NAMES = ("flows", "tasks", "db")
_HOME = Path(__file__).parents[2]
_ADVICE = "install leadloop in a separate virtual environment"


def find_hidden_package() -> str | None:
    """Return one line if Python imports another package in place of leadloop's; else None."""
    for name in _NAMES:
        place = _locate_package(name)
        if place is None:
            return f"leadloop's package {name} is missing: {_ADVICE}"
        if place != (_HOME / name / "__init__.py").resolve():
            owner = _name_others(name)
            return (
                f"another package {name} is in the way of leadloop's: {place}{owner}."
                f" Remove it from Python's path, or {_ADVICE}"
            )
    return None


def find_overwritten_package() -> str | None:
    """Return one line if another distribution installed files into leadloop's packages."""
    for name in _NAMES:
        if owner := _name_others(name):
            return (
                f"the package {name} holds files of another distribution{owner}, which may have"
                f" replaced leadloop's: {_ADVICE}"
            )
    return None


def _locate_package(name: str) -> Path | None:
    """Return the file that `import name` would read, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).resolve() if spec and spec.origin else None


def _name_others(name: str) -> str:
    """Return the other distributions that own a package of this name, in parentheses, or ''."""
    # Reads the files of every distribution, and its import is slow: only if something is wrong.
    from importlib.metadata import packages_distributions

    owners = set(packages_distributions().get(name, ())) - {"leadloop"}
    return f" ({', '.join(sorted(owners))})" if owners else ""
