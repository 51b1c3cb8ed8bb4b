"""Which parts of its job a Prefect work pool lets a run set."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLACEHOLDER = re.compile(r"{{\s*([\w.\-\[\]$]+)\s*}}")
#: What the server's blocks and variables hold, or the worker's environment: no run sets these.
_NOT_OF_A_RUN = ("prefect.blocks.", "prefect.variables.", "$")
#: Parts of `job_configuration` that name or label a job, or copy its output; with their paths.
_HARMLESS = (
    ("labels",),
    ("name",),
    ("stream_output",),
    # In the template of a Kubernetes pool.
    ("job_manifest", "metadata", "generateName"),
    ("job_manifest", "metadata", "labels"),
    ("job_manifest", "metadata", "name"),
)
_IN_EVERY_DEFAULT = ["command", "env"]


def settable_variables(template: Mapping[str, Any]) -> list[str]:
    """Return the job variables of a base job template by which a run decides what is executed.

    Variables count by where the template takes them: parts that only name or label a job, or copy
    its output, may take any. A fixed `env` counts: Prefect merges the `env` of a run into it, with
    a variable for it or without. An empty template is replaced by the default of the pool's type
    when the first worker starts.
    """
    if not template:
        return _IN_EVERY_DEFAULT
    configuration: Mapping[str, Any] = template.get("job_configuration") or {}
    placeholders = _placeholders(configuration)
    found = {re.split(r"[.\[]", name)[0] for name in placeholders if not _is_fixed(name)}
    if isinstance(configuration.get("env"), Mapping):
        found.add("env")
    return sorted(found)


def _is_fixed(placeholder: str) -> bool:
    return placeholder.startswith(_NOT_OF_A_RUN)


def _placeholders(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the placeholders in a part of a template, less those in its harmless places."""
    if path in _HARMLESS:
        return
    if isinstance(value, str):
        yield from _PLACEHOLDER.findall(value)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _placeholders(part, (*path, key))
    elif isinstance(value, list):
        for part in value:
            yield from _placeholders(part, path)
