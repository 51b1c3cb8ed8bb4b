"""The folder of the files that messages name: `docs/`, prefect.yaml and automations.yaml."""

from pathlib import Path

_PACKED = Path(__file__).with_name("share")
#: A wheel holds the files in `leadloop/share`, a checkout beside the packages.
SHIPPED_FILES = _PACKED if _PACKED.is_dir() else Path(__file__).parents[1]
