import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.sandbox.http_client import Visitor, lead

Visit = Callable[..., Visitor]


def control(api: Visitor, method: str, path: str, **given: Any) -> Any:
    """A control route, without any token."""
    headers = {"Authorization": None}
    answer = api.call(method, f"/_sandbox/{path}", headers=headers, **given)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_outcomes_are_put_in_by_hand(visit: Visit) -> None:
    """Stored ones can be read at once; unknown leads are named."""
    api = visit()
    api.create([lead("a"), lead("b")])
    items = [{"campaign_id": "C1", "lead_id": "a", "outcome_id": 1, "processed_at": 5}]
    unknown = [{"campaign_id": "C1", "lead_id": "x"}, {"campaign_id": "C9", "lead_id": "a"}]
    told = control(api, "POST", "outcomes", json=items + unknown)
    assert told == {"stored": 1, "unknown": [["C1", "x"], ["C9", "a"]]}
    assert api.ids(processed_after=0) == ["a"]
    assert api.handle.books.processed("C1") == {"a": 5}


def test_an_outcome_put_in_bare_is_drawn(visit: Visit) -> None:
    """With neither outcome nor attempts stated, believable ones are made up."""
    api = visit()
    api.create([lead("a")])
    control(api, "POST", "outcomes", json=[{"campaign_id": "C1", "lead_id": "a"}])
    (row,) = api.read(processed_after=0).json()["results"]
    assert row["outcome_name"]
    assert row["call_attempt_keys"]


def test_an_outcome_can_be_seen_later_than_it_was_processed(visit: Visit) -> None:
    """`visible_at` is the only thing that a late outcome needs."""
    api = visit()
    api.create([lead("a")])
    now = api.handle.now()
    api.process("a", processed_at=now, visible_at=now + 50_000)
    assert api.ids(processed_after=0) == []
    api.handle.change(clock_offset=51)
    assert api.ids(processed_after=now, processed_before=now) == ["a"]


def test_a_lead_processed_by_hand_is_not_processed_once_more_by_itself(visit: Visit) -> None:
    """What was drawn at creation does not overwrite it."""
    api = visit(pace=1)
    api.create([lead("a")])
    api.process("a", processed_at=5)
    api.handle.change(clock_offset=1000)
    assert api.handle.books.processed("C1") == {"a": 5}


def test_a_lead_put_in_again_is_processed_again(visit: Visit) -> None:
    """It leaves its old place in the order of time."""
    api = visit(order="processed")
    api.create([lead("a"), lead("b")])
    api.process("a", processed_at=5)
    api.process("b", processed_at=6)
    api.process("a", processed_at=7)
    assert api.ids(processed_after=0) == ["b", "a"]
    assert api.ids(processed_before=5) == []
    assert api.ids(processed_after=7) == ["a"]


def test_outcomes_need_not_be_put_in_in_the_order_of_time(visit: Visit) -> None:
    """A window finds what was processed in it, whenever the books learnt of it."""
    api = visit()
    api.create([lead("a"), lead("b")])
    api.process("a", processed_at=5)
    api.process("b", processed_at=3)
    assert api.ids(processed_before=4) == ["b"]
    assert api.ids(processed_after=4) == ["a"]


def test_five_thousand_outcomes_a_call(visit: Visit) -> None:
    """Bulk is quick enough for a benchmark's preparations."""
    api = visit()
    ids = [f"L{n}" for n in range(5000)]
    for at in range(0, 5000, 500):
        api.create([lead(lead_id) for lead_id in ids[at : at + 500]])
    attempt = {"reference_id": "r", "outcome_id": 1, "called_at": 5, "status": "Completed"}
    common = {"campaign_id": "C1", "outcome_id": 1, "attempts": [attempt, attempt]}
    items = [{**common, "lead_id": lead_id, "processed_at": n} for n, lead_id in enumerate(ids)]
    start = time.monotonic()
    assert control(api, "POST", "outcomes", json=items)["stored"] == 5000
    assert time.monotonic() - start < 30
    assert api.read(processed_after=0).json()["count"] == 5000


def test_the_books_can_be_read(visit: Visit) -> None:
    """What was created, offered, processed, disabled, and what should not have happened."""
    api = visit(repeat="second")
    api.create([lead("a"), lead("b")])
    api.create([lead("a")])
    api.disable("b")
    books = control(api, "GET", "books")
    counts = {"leads": 3, "processed": 0, "disabled": 1, "created_twice": 1}
    assert books["campaigns"] == {"C1": counts}
    assert [v["lead_id"] for v in books["violations"]] == ["a"]
    (row,) = control(api, "GET", "leads/C1?lead_id=b")
    assert (row["lead_id"], row["created"], row["offered"]) == ("b", 1, 1)
    assert row["disabled_at"] >= row["created_at"]
    assert len(control(api, "GET", "leads/C1")) == 3


def test_requests_are_logged_without_the_controls(visit: Visit) -> None:
    """Only what a client sent, in order, from an index on."""
    api = visit()
    api.create([lead("a")])
    api.read()
    log = control(api, "GET", "requests")
    assert [(e["kind"], e["status"], e["method"]) for e in log] == [
        ("create", 201, "POST"),
        ("responses", 200, "GET"),
    ]
    assert [e["kind"] for e in control(api, "GET", "requests?since=1")] == ["responses"]
    assert control(api, "GET", "busiest?seconds=60") == {"seconds": 60.0, "requests": 2}
    assert api.handle.busiest(60, ["create"]) == 1


def test_rules_change_while_it_runs(visit: Visit) -> None:
    """As JSON values or as the texts of the command line; secrets are not shown."""
    api = visit()
    rules = control(api, "POST", "rules", json={"max_batch": 1, "rate_limit": "100/60"})
    assert (rules["max_batch"], rules["rate_limit"]) == (1, [100, 60.0])
    assert api.create([lead("a"), lead("b")]).status_code == 400
    control(api, "POST", "rules", json={"max_batch": None, "campaigns": {"C1": "One"}})
    assert api.create([lead("a"), lead("b")]).status_code == 201
    assert api.read("C2").status_code == 404
    assert not {"tokens", "password", "client_secret"} & set(control(api, "GET", "rules"))


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
def test_a_wrong_control_is_refused(visit: Visit, path: str, body: Any) -> None:
    """400 with a reason."""
    answer = visit().call("POST", f"/_sandbox/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_faults_are_added_counted_and_cleared(visit: Visit) -> None:
    """One or a list of them."""
    api = visit()
    control(api, "POST", "faults", json={"kind": "status", "status": 503, "times": 1})
    control(api, "POST", "faults", json=[{"kind": "foreign", "nth": 9}])
    assert [api.read().status_code for _ in range(2)] == [503, 200]
    counts = control(api, "GET", "faults")
    assert [(c["fault"], c["seen"], c["fired"]) for c in counts] == [
        ("status 503 before", 2, 1),
        ("foreign before", 2, 0),
    ]
    assert control(api, "DELETE", "faults") == []


def test_reset_forgets_all_but_the_rules(visit: Visit) -> None:
    """A fresh sandbox without a new process."""
    api = visit(max_batch=7)
    api.create([lead("a")])
    api.handle.fault(kind="status")
    control(api, "POST", "reset")
    assert api.ids() == []
    assert [e.kind for e in api.handle.requests] == ["responses"]
    assert api.handle.rules.max_batch == 7
