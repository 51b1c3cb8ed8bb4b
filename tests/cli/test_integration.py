"""`leadloop integration`: files for other tools, held to what the program exports."""

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from db.database import Database
from leadloop.cli.integration import INTEGRATION_FILES, Integration, read_integration
from leadloop.cli.metrics import CampaignCollector
from tests import factories, sql
from tests.cli.conftest import Command
from tests.monitor.seed_data import seed_stuck

_GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "dashboards-and-alerts.md"
_SELECTOR = re.compile(r"\b(leadloop_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(?:=|=~)"')
_LEGEND_LABEL = re.compile(r"\{\{(\w+)\}\}")
_VARIABLES = {"$job": "leadloop", "$campaign": ".*", "$__rate_interval": "5m"}
#: The label that Prometheus adds to each sample, and the dashboard selects.
_JOB = {"job": "leadloop"}
_MINUTES = 70

Promtool = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query of the dashboard, without Grafana's variables.

    Args:
        panel: the title of its panel.
        expression: PromQL.
        labels: labels that its legend shows.
    """

    panel: str
    expression: str
    labels: Sequence[str]


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    content: dict[str, Any] = json.loads(read_integration(Integration.GRAFANA))
    return content


def queries() -> Iterator[Query]:
    """Yield every query of the dashboard's panels."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in _VARIABLES.items():
                expression = expression.replace(name, value)
            labels = _LEGEND_LABEL.findall(target["legendFormat"])
            yield Query(panel=panel["title"], expression=expression, labels=labels)


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    (group,) = yaml.safe_load(read_integration(Integration.PROMETHEUS))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


@pytest.fixture
def scrape(database: Database) -> list[Sample]:
    """Every sample of a scrape in which no metric is without a sample."""
    seed_stuck(database)
    factories.owe_window(database, "2026-01-31T09:00:00Z", "2026-01-31T09:00:01Z", "EAST-1")
    factories.owe_window(
        database,
        "2026-01-31T10:00:00Z",
        "2026-01-31T10:00:01Z",
        "EAST-1",
        accepted_at="2026-01-31T11:00:00Z",
        accepted_by="ann",
        accepted_reason="gone",
    )
    factories.add_opt_outs(database, "L-1", campaign="WEST-2", status="failed")
    sql.execute(
        database,
        """INSERT INTO leadloop.latencies
           SELECT '-infinity', campaign_id, kind, bucket_s, amount, total_s
             FROM leadloop.latencies""",
    )
    registry = CollectorRegistry()
    registry.register(CampaignCollector(database))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return [sample for family in families for sample in family.samples]


@pytest.fixture
def promtool(tmp_path: Path) -> Promtool:
    """Run promtool in a folder with the rules; skip if missing, or fail if PROMTOOL_REQUIRED."""
    program = shutil.which("promtool")
    if program is None:
        reason = "no promtool: apt-get install prometheus"
        if os.environ.get("PROMTOOL_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)
    rules_file = tmp_path / "leadloop-rules.yaml"
    rules_file.write_text(read_integration(Integration.PROMETHEUS), encoding="utf-8")

    def run(*arguments: str, content: str | None = None) -> None:
        if content is not None:
            (tmp_path / arguments[-1]).write_text(content, encoding="utf-8")
        ran = subprocess.run(
            [program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr

    return run


@pytest.mark.parametrize("tool", Integration)
def test_each_file_is_printed(invoke: Command, tool: Integration) -> None:
    """A user of a wheel, without a checkout, gets the file that fits the version."""
    ran = invoke("integration", tool)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == INTEGRATION_FILES[tool].read_text(encoding="utf-8") != ""


def test_an_unknown_tool(invoke: Command) -> None:
    """Exit 2, and the tools that there are."""
    ran = invoke("integration", "nagios")
    assert ran.code == 2
    assert all(tool in ran.err for tool in Integration)


def test_every_metric_and_label_of_the_dashboard_is_exported(scrape: list[Sample]) -> None:
    """No panel and no variable stays empty because of a name that is not there."""
    labels = {sample.name: {*sample.labels, *_JOB} for sample in scrape}
    variables = [each["definition"] for each in dashboard()["templating"]["list"][1:]]
    for expression in [*(query.expression for query in queries()), *variables]:
        for name, matchers in _SELECTOR.findall(expression):
            assert name in labels, expression
            assert set(_MATCHER.findall(matchers)) <= labels[name], expression
    for name, label in re.findall(r"label_values\((\w+).*?, (\w+)\)", "\n".join(variables)):
        assert label in labels[name]


def test_every_exported_metric_is_in_the_dashboard(scrape: list[Sample]) -> None:
    """A new metric gets a panel; of a histogram one of its three series is enough."""
    shown = {name for query in queries() for name, _ in _SELECTOR.findall(query.expression)}
    families = {re.sub(r"_(bucket|count|sum)$", "", sample.name) for sample in scrape}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown} == families


def test_every_query_of_the_dashboard_has_a_result(
    scrape: list[Sample], promtool: Promtool
) -> None:
    """Prometheus evaluates each panel's query on a scrape, with the labels of its legend."""
    tests = [
        {
            "expr": f"count({_require_labels(query)}) > bool 0",
            "eval_time": "65m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for query in queries()
    ]
    series = [_build_series(sample, _continue(sample)) for sample in scrape]
    run_rule_tests(promtool, input_series=series, promql_expr_test=tests)


def test_thresholds_of_the_dashboard_are_those_of_the_problems(database: Database) -> None:
    """A figure changes its colour at the age at which it becomes a problem."""
    (thresholds,) = sql.fetch_rows(database, "SELECT * FROM leadloop_monitor.thresholds")
    colours = {
        panel["title"]: panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"]
        for panel in dashboard()["panels"]
        if panel["type"] == "stat" and panel["fieldConfig"]["defaults"]["unit"] == "s"
    }
    assert colours == {
        "Oldest open opt-out": thresholds["opt_outs_waiting"].total_seconds(),
        "Oldest unsent lead": thresholds["leads_unsent"].total_seconds(),
        "Lag of the watermark": thresholds["poll_behind"].total_seconds(),
    }


def test_rules_and_configuration_are_valid(promtool: Promtool) -> None:
    """Prometheus loads the rules, and the configuration that the documents show."""
    promtool("check", "rules", "leadloop-rules.yaml")
    (configuration,) = re.findall(r"```yaml\n(.*?)```", _GUIDE.read_text("utf-8"), re.DOTALL)
    promtool("check", "config", "prometheus.yml", content=configuration)


def test_each_problem_alerts(scrape: list[Sample], promtool: Promtool) -> None:
    """Critical ones at once, warnings after five minutes.

    While the database cannot be read, they do not count as solved until that alerts as well.
    """
    problems = [sample for sample in scrape if sample.name == "leadloop_problems"]
    alerts = defaultdict(list)
    for problem in problems:
        alerts[problem.labels["severity"]].append(_expect_alert(problem))
    assert set(alerts) == {"critical", "warning"}
    down = [_describe_alert("LeadloopDown", {"severity": "critical", **_JOB})]
    expected = [
        ("0m", "LeadloopCritical", alerts["critical"]),
        ("0m", "LeadloopWarning", []),
        ("6m", "LeadloopWarning", alerts["warning"]),
        ("14m", "LeadloopCritical", alerts["critical"]),
        ("14m", "LeadloopWarning", alerts["warning"]),
        ("14m", "LeadloopDown", []),
        ("16m", "LeadloopDown", down),
        ("30m", "LeadloopCritical", []),
    ]
    run_rule_tests(
        promtool,
        # The database answers for ten minutes, and then not.
        input_series=[
            {"series": f'leadloop_up{{job="{_JOB["job"]}"}}', "values": "1+0x9 0+0x30"},
            *(_build_series(problem, f"{problem.value}+0x9 stale") for problem in problems),
        ],
        alert_rule_test=[
            {"eval_time": at, "alertname": name, "exp_alerts": each} for at, name, each in expected
        ],
    )


def test_an_exporter_that_is_away_alerts(promtool: Promtool) -> None:
    """Without any sample of leadloop, after five minutes."""
    alert = _describe_alert("LeadloopDown", {"severity": "critical"})
    run_rule_tests(
        promtool,
        input_series=[{"series": "up", "values": "0+0x10"}],
        alert_rule_test=[
            {"eval_time": "4m", "alertname": "LeadloopDown", "exp_alerts": []},
            {"eval_time": "6m", "alertname": "LeadloopDown", "exp_alerts": [alert]},
        ],
    )


def test_an_incomplete_upgrade_alerts(promtool: Promtool) -> None:
    """After half an hour, in which `leadloop init` may be counting."""
    alert = _describe_alert("LeadloopUpgradeIncomplete", {"severity": "warning", **_JOB})
    labels = f'job="{_JOB["job"]}"'
    run_rule_tests(
        promtool,
        input_series=[{"series": f"leadloop_upgrade_complete{{{labels}}}", "values": "0+0x60"}],
        alert_rule_test=[
            {"eval_time": at, "alertname": "LeadloopUpgradeIncomplete", "exp_alerts": expected}
            for at, expected in (("29m", []), ("31m", [alert]))
        ],
    )


def run_rule_tests(promtool: Promtool, **test: Any) -> None:
    """Run a test of Prometheus's own kind, with a sample a minute."""
    content = {
        "rule_files": ["leadloop-rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", **test}],
    }
    promtool("test", "rules", "tests.yaml", content=yaml.safe_dump(content))


def _require_labels(query: Query) -> str:
    """Leave out elements that lack a label of the legend."""
    expression = f"({query.expression})"
    for label in query.labels:
        expression = f"({expression} unless on ({label}) vector(1))"
    return expression


def _continue(sample: Sample) -> str:
    """Repeat a gauge, and increase a counter by its value each minute."""
    step = sample.value if sample.name.startswith("leadloop_latency") else 0
    return f"{sample.value}+{step}x{_MINUTES}"


def _build_series(sample: Sample, values: str) -> dict[str, str]:
    labels = ",".join(f'{name}="{value}"' for name, value in {**sample.labels, **_JOB}.items())
    return {"series": f"{sample.name}{{{labels}}}", "values": values}


def _expect_alert(problem: Sample) -> dict[str, Any]:
    name = f"Leadloop{problem.labels['severity'].capitalize()}"
    text = f"{problem.labels['problem']} in campaign {problem.labels['campaign']}: "
    return _describe_alert(name, {**problem.labels, **_JOB}, summary=f"{text}{problem.value:g}")


def _describe_alert(name: str, labels: Mapping[str, str], **annotations: str) -> dict[str, Any]:
    (rule,) = [rule for rule in rules() if rule["alert"] == name]
    return {"exp_labels": dict(labels), "exp_annotations": {**rule["annotations"], **annotations}}
