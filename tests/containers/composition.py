"""compose.yaml, read as Docker Compose reads it, as far as it is used there."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

COMPOSE_YAML = Path(__file__).parents[2] / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


def read_compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return compose.yaml with the values of variables filled in.

    Raises:
        KeyError: a variable that must be set is missing.
    """

    def fill(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if name in variables:
            return variables[name]
        if kind == ":-":
            return str(rest)
        raise KeyError(name)

    filled = _VARIABLE.sub(fill, COMPOSE_YAML.read_text(encoding="utf-8"))
    content: dict[str, Any] = yaml.safe_load(filled)
    return content
