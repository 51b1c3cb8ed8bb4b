"""Which job variables of a work pool let a run decide what a worker executes."""

import json
from typing import Any

import pytest

from leadloop.core.work_pools import settable_variables
from leadloop.deployments import JOB_TEMPLATE


@pytest.mark.parametrize(
    ("configuration", "settable"),
    [
        ({"command": "{{ command }}", "env": "{{ env }}"}, ["command", "env"]),
        ({"name": "{{ name }}", "labels": "{{ labels }}"}, []),
        # The place counts, not what the variable is called.
        ({"command": "{{ name }}"}, ["name"]),
        ({"command": "run {{ labels }}"}, ["labels"]),
        ({"env": "{{ stream_output }}", "name": "{{ name }}"}, ["stream_output"]),
        ({"name": "{{ command }}", "labels": {"team": "{{ env.TEAM }}"}}, []),
        ({"job_manifest": {"metadata": {"generateName": "{{ name }}-"}}}, []),
        ({"job_manifest": {"spec": {"labels": "{{ labels }}"}}}, ["labels"]),
        ({"command": "python -m prefect.engine", "working_dir": None, "labels": {}}, []),
        # Prefect merges a run's env into it, without a variable too.
        ({"env": {"TZ": "UTC"}}, ["env"]),
        ({"env": "{{ prefect.variables.environment }}"}, []),
        ({"command": "{{ prefect.blocks.secret.a }} {{ $HOME }}/run --as {{user.id}}"}, ["user"]),
        (
            {"job_manifest": {"spec": {"containers": [{"image": "{{ image }}", "tty": True}]}}},
            ["image"],
        ),
        ({}, []),
    ],
)
def test_what_a_run_may_set(configuration: dict[str, Any], settable: list[str]) -> None:
    """An operator is warned of each, and of nothing that is harmless."""
    assert settable_variables({"job_configuration": configuration}) == settable


def test_a_pool_without_a_template_gets_its_type_s_default() -> None:
    """The first worker puts one there that takes a command and an environment from runs."""
    assert settable_variables({}) == ["command", "env"]


def test_nothing_in_the_pool_that_we_create() -> None:
    """Its own template needs no warning."""
    assert settable_variables(json.loads(JOB_TEMPLATE.read_text())) == []
