"""The values of Prefect's worker chart and the job template, against their schemas."""

import json
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from leadloop import __version__
from leadloop.core.work_pools import settable_variables
from leadloop.deployments import WORK_POOL

_CHECKOUT = Path(__file__).parents[2]
_FOLDER = _CHECKOUT / "docs" / "kubernetes"
_SCHEMAS = Path(__file__).parent / "schemas"
_VALUES: dict[str, Any] = yaml.safe_load((_FOLDER / "worker-values.yaml").read_text())
_TEMPLATE: dict[str, Any] = json.loads((_FOLDER / "job-template.json").read_text())
# Prefect's worker demands them in the pod's specification, where Kubernetes ignores them.
_PREFECTS_OWN = {"parallelism": 1, "completions": 1}


def _find_errors(schema: str, value: object) -> list[str]:
    validator = Draft202012Validator(json.loads((_SCHEMAS / schema).read_text()))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def test_the_chart_takes_the_values() -> None:
    """A misspelt value is found here: Helm ignores most of them."""
    assert _find_errors("prefect-worker-values.json", _VALUES) == []
    spoilt = {"worker": {**_VALUES["worker"], "livenessprobe": {}}}
    assert _find_errors("prefect-worker-values.json", spoilt)


def test_kubernetes_takes_the_job() -> None:
    """Kubernetes' own schema, with every key refused that it does not name."""
    job = json.loads(json.dumps(_TEMPLATE["job_configuration"]["job_manifest"]))
    pod = job["spec"]["template"]["spec"]
    assert {name: pod.pop(name) for name in _PREFECTS_OWN} == _PREFECTS_OWN
    assert _find_errors("kubernetes-job.json", job) == []
    pod["restartpolicy"] = "Never"
    assert _find_errors("kubernetes-job.json", job)


def test_a_run_cannot_choose_what_is_executed() -> None:
    """As in the pool that `leadloop deploy` creates: no command, image or environment of a run."""
    own = json.loads((_CHECKOUT / "leadloop" / "work_pool.json").read_text())
    assert settable_variables(_TEMPLATE) == []
    assert _TEMPLATE["variables"] == own["variables"]


def test_both_fit_this_release() -> None:
    """The pool that prefect.yaml names, this version's image, and Prefect of the lock."""
    assert _VALUES["worker"]["config"]["workPool"] == WORK_POOL
    (container,) = _TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["image"] == f"leadloop:{__version__}"
    lock = (_CHECKOUT / "requirements.lock").read_text()
    version = _VALUES["worker"]["image"]["prefectTag"].partition("-")[0]
    assert f"\nprefect=={version} " in lock
