import time
from typing import Any

import pytest

from tests.sandbox.http_client import StartSandbox, lead


def test_outcomes_are_put_in_over_http(start_sandbox: StartSandbox) -> None:
    """Stored ones can be read at once; unknown leads are named."""
    api = start_sandbox()
    api.create([lead("a"), lead("b")])
    items = [{"campaign_id": "C1", "lead_id": "a", "outcome_id": 1, "processed_at": 5}]
    unknown = [{"campaign_id": "C1", "lead_id": "x"}, {"campaign_id": "C9", "lead_id": "a"}]
    answer = api.call_admin("POST", "outcomes", json=items + unknown)
    assert answer == {"stored": 1, "unknown": [["C1", "x"], ["C9", "a"]]}
    assert api.ids(processed_after=0) == ["a"]
    assert api.handle.store.processed("C1") == {"a": 5}


def test_five_thousand_outcomes_a_call(start_sandbox: StartSandbox) -> None:
    """Bulk is quick enough for a benchmark's preparations."""
    api = start_sandbox()
    ids = [f"L{n}" for n in range(5000)]
    for at in range(0, 5000, 500):
        api.create([lead(lead_id) for lead_id in ids[at : at + 500]])
    attempt = {"reference_id": "r", "outcome_id": 1, "called_at": 5, "status": "Completed"}
    common = {"campaign_id": "C1", "outcome_id": 1, "attempts": [attempt, attempt]}
    items = [{**common, "lead_id": lead_id, "processed_at": n} for n, lead_id in enumerate(ids)]
    start = time.monotonic()
    assert api.call_admin("POST", "outcomes", json=items)["stored"] == 5000
    assert time.monotonic() - start < 30
    assert api.read(processed_after=0).json()["count"] == 5000


def test_the_records_can_be_read(start_sandbox: StartSandbox) -> None:
    """What was created, offered, processed, disabled, and what should not have happened."""
    api = start_sandbox(repeat="second")
    api.create([lead("a"), lead("b")])
    api.create([lead("a")])
    api.disable("b")
    records = api.call_admin("GET", "books")
    counts = {"leads": 3, "processed": 0, "disabled": 1, "created_twice": 1}
    assert records["campaigns"] == {"C1": counts}
    assert [v["lead_id"] for v in records["violations"]] == ["a"]
    (row,) = api.call_admin("GET", "leads/C1?lead_id=b")
    assert (row["lead_id"], row["created"], row["offered"]) == ("b", 1, 1)
    assert row["disabled_at"] >= row["created_at"]
    assert len(api.call_admin("GET", "leads/C1")) == 3


def test_requests_are_logged_without_admin_requests(start_sandbox: StartSandbox) -> None:
    """Only what a client sent, in order, from an index on."""
    api = start_sandbox()
    api.create([lead("a")])
    api.read()
    log = api.call_admin("GET", "requests")
    assert [(e["kind"], e["status"], e["method"]) for e in log] == [
        ("create", 201, "POST"),
        ("responses", 200, "GET"),
    ]
    assert [e["kind"] for e in api.call_admin("GET", "requests?since=1")] == ["responses"]
    assert api.call_admin("GET", "busiest?seconds=60") == {"seconds": 60.0, "requests": 2}
    assert api.handle.count_busiest(60, ["create"]) == 1


def test_rules_change_while_it_runs(start_sandbox: StartSandbox) -> None:
    """As JSON values or as the texts of the command line; secrets are not shown."""
    api = start_sandbox()
    rules = api.call_admin("POST", "rules", json={"max_batch": 1, "rate_limit": "100/60"})
    assert (rules["max_batch"], rules["rate_limit"]) == (1, [100, 60.0])
    assert api.create([lead("a"), lead("b")]).status_code == 400
    api.call_admin("POST", "rules", json={"max_batch": None, "campaigns": {"C1": "One"}})
    assert api.create([lead("a"), lead("b")]).status_code == 201
    assert api.read("C2").status_code == 404
    assert not {"tokens", "password", "client_secret"} & set(api.call_admin("GET", "rules"))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("rules", {"nonsense": 1}),
        ("rules", {"max_batch": "x"}),
        ("rules", {"max_batch": 1.5}),
        ("faults", {"kind": "boom"}),
        ("outcomes", [{"lead_id": "a"}]),
        ("outcomes", 5),
    ],
)
def test_a_wrong_admin_request_is_refused(
    start_sandbox: StartSandbox, path: str, body: Any
) -> None:
    """400 with a reason."""
    answer = start_sandbox().call("POST", f"/_sandbox/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_faults_are_added_counted_and_cleared(start_sandbox: StartSandbox) -> None:
    """One or a list of them."""
    api = start_sandbox()
    api.call_admin("POST", "faults", json={"kind": "status", "status": 503, "times": 1})
    api.call_admin("POST", "faults", json=[{"kind": "foreign", "nth": 9}])
    assert [api.read().status_code for _ in range(2)] == [503, 200]
    counts = api.call_admin("GET", "faults")
    assert [(c["fault"], c["seen"], c["fired"]) for c in counts] == [
        ("status 503 before", 2, 1),
        ("foreign before", 2, 0),
    ]
    assert api.call_admin("DELETE", "faults") == []


def test_reset_forgets_all_but_the_rules(start_sandbox: StartSandbox) -> None:
    """A fresh sandbox without a new process."""
    api = start_sandbox(max_batch=7)
    api.create([lead("a")])
    api.handle.add_fault(kind="status")
    api.call_admin("POST", "reset")
    assert api.ids() == []
    assert [e.kind for e in api.handle.requests] == ["responses"]
    assert api.handle.rules.max_batch == 7


def test_a_web_page_controls_no_sandbox(start_sandbox: StartSandbox) -> None:
    """A browser adds the page's origin to what the page posts; no JSON is needed for that."""
    api = start_sandbox()
    api.create([{"lead_id": "a", "phone_number": "+14155550100"}])
    for origin in ("https://evil.example", "null"):
        headers = {"Origin": origin, "Content-Type": "text/plain"}
        assert api.call("POST", "/_sandbox/reset", headers=headers).status_code == 403
    assert api.call_admin("GET", "requests")
