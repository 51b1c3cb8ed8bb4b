"""Prefect work pools: the job variables by which a run can change what is executed."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLACEHOLDER = re.compile(r"{{\s*([\w.\-\[\]$]+)\s*}}")
#: Prefixes of placeholders that the server or the worker's environment fills, never a run.
_FIXED_PREFIXES = ("prefect.blocks.", "prefect.variables.", "$")
#: Paths in `job_configuration` that only name or label a job, or copy its output.
_HARMLESS = (
    ("labels",),
    ("name",),
    ("stream_output",),
    # In the template of a Kubernetes pool.
    ("job_manifest", "metadata", "generateName"),
    ("job_manifest", "metadata", "labels"),
    ("job_manifest", "metadata", "name"),
)
_DEFAULT_VARIABLES = ["command", "env"]


def settable_variables(template: Mapping[str, Any]) -> list[str]:
    """Return the job variables of a base job template by which a run can set what is executed.

    Variables in parts that only name or label a job, or copy its output, do not count. A fixed
    `env` counts, because Prefect merges the `env` of a run into it with or without a variable. An
    empty template is replaced by the default of the pool's type when the first worker starts.
    """
    if not template:
        return _DEFAULT_VARIABLES
    configuration: Mapping[str, Any] = template.get("job_configuration") or {}
    placeholders = _find_placeholders(configuration)
    found = {
        re.split(r"[.\[]", name)[0] for name in placeholders if not name.startswith(_FIXED_PREFIXES)
    }
    if isinstance(configuration.get("env"), Mapping):
        found.add("env")
    return sorted(found)


def _find_placeholders(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the placeholders in a part of a template, without those at harmless paths."""
    if path in _HARMLESS:
        return
    if isinstance(value, str):
        yield from _PLACEHOLDER.findall(value)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _find_placeholders(part, (*path, key))
    elif isinstance(value, list):
        for part in value:
            yield from _find_placeholders(part, path)
