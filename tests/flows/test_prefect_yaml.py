"""`prefect.yaml` does what it says: Prefect itself passes over whatever it does not understand."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from prefect import Flow
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule

import flows
from leadloop.deployments import LIVE_QUEUE

WHOLE: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "prefect.yaml").read_text(encoding="utf-8")
)
DEPLOYMENTS: list[dict[str, Any]] = WHOLE["deployments"]
SCHEDULES = [
    (deployment["flow_name"], schedule)
    for deployment in DEPLOYMENTS
    for schedule in deployment["schedules"]
]

each_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["flow_name"])


def _strict_schema() -> dict[str, Any]:
    """Prefect's own schema, with every key refused that it does not name."""
    schema = PrefectYamlModel.model_json_schema()
    for model in [schema, *schema["$defs"].values()]:
        if "properties" in model:
            model["additionalProperties"] = False
    return schema


def _entry(entrypoint: str) -> Any:
    module, _, name = entrypoint.rpartition(".")
    return getattr(import_module(module), name)


def _flows() -> Iterator[Flow[..., Any]]:
    for module in iter_modules(flows.__path__, "flows."):
        for value in vars(import_module(module.name)).values():
            if isinstance(value, Flow):
                yield value


def test_prefect_understands_every_key() -> None:
    """A misspelt key is found here, not by an operator who wonders why it has no effect."""
    errors = Draft202012Validator(_strict_schema()).iter_errors(WHOLE)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@pytest.mark.parametrize("key", ["concurency_limit", "schedule_", "entry_point"])
def test_a_misspelt_key_would_be_found(key: str) -> None:
    """The check above is not one that lets everything through."""
    spoilt = {**WHOLE, "deployments": [{**DEPLOYMENTS[0], key: None}]}
    assert not Draft202012Validator(_strict_schema()).is_valid(spoilt)


def test_prefect_reads_it_whole() -> None:
    """Prefect's own model takes the file."""
    assert len(PrefectYamlModel.model_validate(WHOLE).deployments) == len(DEPLOYMENTS)


def test_no_run_fetches_code() -> None:
    """Left out, `pull` would name the folder of whoever deploys."""
    assert WHOLE["pull"] == []
    assert not any("pull" in deployment for deployment in DEPLOYMENTS)


def test_every_flow_has_one_deployment() -> None:
    """Whatever can be run by hand can be scheduled, and nothing is deployed twice."""
    deployed = [(deployment["flow_name"], deployment["name"]) for deployment in DEPLOYMENTS]
    assert sorted(deployed) == sorted({(flow.name, "default") for flow in _flows()})


@each_deployment
def test_the_entrypoint_is_the_flow_named(deployment: dict[str, Any]) -> None:
    """A worker that imports the entrypoint, from whatever folder, runs the flow of that name."""
    flow = _entry(deployment["entrypoint"])
    assert isinstance(flow, Flow)
    assert flow.name == deployment["flow_name"]


@each_deployment
def test_parameters_are_ones_that_the_flow_has(deployment: dict[str, Any]) -> None:
    """A default that the flow does not know would fail every run."""
    flow = _entry(deployment["entrypoint"])
    assert set(deployment["parameters"]) <= set(flow.parameters.properties)


@each_deployment
def test_it_explains_itself_in_the_ui(deployment: dict[str, Any]) -> None:
    """An operator can find it by tag and read what it does and what each parameter means."""
    assert "leadloop" in deployment["tags"]
    assert deployment["description"].endswith(".")
    for name, parameter in _entry(deployment["entrypoint"]).parameters.properties.items():
        assert parameter.get("description"), name


def test_lists_tell_deployments_apart() -> None:
    """All have one name: Prefect's lists show the flow, and as many tags as fit, the first ones."""
    first = [deployment["tags"][0] for deployment in DEPLOYMENTS]
    assert len({*first, "leadloop"}) == len(DEPLOYMENTS) + 1


@each_deployment
def test_it_goes_to_the_work_pool(deployment: dict[str, Any]) -> None:
    """One pool serves all of them."""
    assert deployment["work_pool"]["name"] == "leadloop"


@each_deployment
def test_runs_do_not_pile_up(deployment: dict[str, Any]) -> None:
    """After downtime one run does the work of all that a schedule had due; one asked for waits.

    Of sync-leads there may be one a campaign; fan-out sees to it that there are no more.
    """
    if deployment["flow_name"] == "live-leads":
        # Postgres lets two stay, and the limit of the work queue bounds the others.
        assert "concurrency_limit" not in deployment
        assert deployment["work_pool"]["work_queue_name"] == LIVE_QUEUE
        return
    limit = deployment["concurrency_limit"]
    at_once = 4 if deployment["flow_name"] == "sync-leads" else 1
    strategy = "CANCEL_NEW" if deployment["schedules"] else "ENQUEUE"
    expected = (at_once, ConcurrencyLimitStrategy(strategy))
    assert (limit["limit"], limit["collision_strategy"]) == expected


@pytest.mark.parametrize(
    ("flow", "schedule"), SCHEDULES, ids=[f"{flow}:{s['slug']}" for flow, s in SCHEDULES]
)
def test_schedules_can_be_told_apart_and_mean_what_they_say(
    flow: str, schedule: dict[str, Any]
) -> None:
    """A slug lets a later deploy change a schedule; without a time zone the server would choose."""
    CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
    slugs = [other["slug"] for name, other in SCHEDULES if name == flow]
    assert slugs.count(schedule["slug"]) == 1


def test_what_must_not_wait_is_scheduled() -> None:
    """A live run, the net below it, and housekeeping at night; no more."""
    active = [(flow, schedule) for flow, schedule in SCHEDULES if schedule.get("active", True)]
    assert {flow: schedule["cron"] for flow, schedule in active} == {
        "live-leads": "*/5 * * * *",
        "disable-leads": "8,38 * * * *",
        "push-leads": "18 * * * *",
        "poll-outcomes": "48 * * * *",
        "housekeeping": "17 3 * * *",
    }
