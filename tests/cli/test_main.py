"""Exit codes and error lines of the command line."""

import pytest

from db.database import Database
from leadloop.cli import main
from tests import factories
from tests.cli.conftest import Command


@pytest.mark.parametrize(
    ("environment_changes", "arguments", "said"),
    [
        ({"LEADLOOP_API_URL": "http://example.com"}, ["push"], "use https"),
        ({"LEADLOOP_BATCH_SIZE": "many"}, ["push"], "LEADLOOP_BATCH_SIZE"),
        ({"LEADLOOP_RATE_LIMIT": "fast"}, ["push"], "requests/seconds"),
        ({"LEADLOOP_API_TOKEN": ""}, ["push"], "LEADLOOP_API_TOKEN"),
        ({"LEADLOOP_DATABASE_URL": "mysql://x/y"}, ["push"], "not Postgres"),
        ({"LEADLOOP_DATABASE_URL": ""}, ["push"], "postgresql://user@host:5432/database, or `emb"),
        ({"LEADLOOP_DATABASE_URL": ""}, ["load", "x", "--campaign", "C1"], "is not set"),
        ({"LEADLOOP_DATABASE_URL": ""}, ["status", "--json"], "is not set"),
        ({"LEADLOOP_DATABASE_URL": ""}, ["monitor"], "is not set"),
        (
            {"LEADLOOP_DATABASE_URL": "", "LEADLOOP_DATABSE_URL": "pw"},
            ["status"],
            "LEADLOOP_DATABSE_URL is not a setting, did you mean LEADLOOP_DATABASE_URL?",
        ),
        ({"LEADLOOP_BATCHSIZE": "5"}, ["poll"], "did you mean LEADLOOP_BATCH_SIZE?"),
        (
            {"LEADLOOP_MONITOR_DATABASE_URL": "embedded"},
            ["monitor"],
            "LEADLOOP_MONITOR_DATABASE_URL is wrong: not a URL; write postgresql://",
        ),
        ({"LEADLOOP_SOURCE_URL": "pw"}, ["status"], "LEADLOOP_SOURCE_URL is wrong: not a URL"),
        ({"LEADLOOP_DATABASE_URL": "postgres://u:pw@127.0.0.1:1/x"}, ["push"], "refused"),
        ({"LEADLOOP_DATABASE_URL": "postgres://u:x@pw/y@h/x"}, ["push"], "%40"),
        ({"PREFECT_API_URL": "http://[::1"}, ["push"], "PREFECT_API_URL is not a URL"),
        ({"PREFECT_API_URL": "http://127.0.0.1:1/api"}, ["push"], "no server answers there"),
        ({"PREFECT_API_URL": "http://127.0.0.1:1/api"}, ["deploy"], "no server answers there"),
        ({}, ["deploy"], "name the Prefect server"),
        ({}, ["push", "--campaign", ""], "--campaign is empty"),
        (
            {},
            ["backfill", "--after", "1767225600000", "--before", "1767225600000"],
            "the range is empty",
        ),
        ({}, ["push", "--campaign", "NOPE"], "unknown campaign NOPE"),
        ({}, ["poll", "--since", "yesterday"], "ISO 8601"),
        ({}, ["backfill", "--after", "2026-01-02T00:00:00Z", "--before", "0"], "before"),
        ({}, ["push", "--nonsense"], "No such option"),
        ({}, ["nonsense"], "No such command"),
        ({}, ["sandbox", "--port", "x"], "--port"),
        ({}, ["requeue"], "name what to requeue"),
        ({}, ["load", "missing.csv", "--campaign", "C1"], "missing.csv"),
        ({}, ["sandbox", "--rule", "nonsense=1"], "nonsense"),
    ],
)
def test_wrong_usage_is_one_line(
    leadloop: Command,
    invoke: Command,
    database: Database,
    prefect: str,
    environment_changes: dict[str, str],
    arguments: list[str],
    said: str,
) -> None:
    """Exit 2, one line on stderr that says what is wrong, no traceback and no password."""
    factories.add_campaign(database)
    if "PREFECT_API_URL" in environment_changes or arguments in (["deploy"], ["nonsense"]):
        # Prefect reads its settings when it is imported.
        ran = leadloop(*arguments, **environment_changes)
    else:
        ran = invoke(*arguments, **{"PREFECT_API_URL": prefect, **environment_changes})
    assert ran.code == 2
    assert said in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert "pw" not in ran.err


def test_an_interrupted_start_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C or SIGTERM during a command is exit code 1 and one line."""

    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("leadloop.cli.app.app", interrupt)
    assert main.run_app() == (1, main.STOPPED)
