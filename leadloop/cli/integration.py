"""`leadloop integration`: files for other tools, packed with the program, so that they fit it."""

from enum import StrEnum
from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "integrations"


class Integration(StrEnum):
    """The tool that a file is for."""

    GRAFANA = "grafana"
    PROMETHEUS = "prometheus"
    DBT = "dbt"


#: The file of each tool.
INTEGRATION_FILES = {
    Integration.GRAFANA: _FOLDER / "grafana-dashboard.json",
    Integration.PROMETHEUS: _FOLDER / "prometheus-rules.yaml",
    Integration.DBT: _FOLDER / "dbt-sources.yaml",
}


def read_integration(tool: Integration) -> str:
    """Return the text of a tool's file."""
    return INTEGRATION_FILES[tool].read_text(encoding="utf-8")
