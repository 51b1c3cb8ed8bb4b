from typing import Any

import pytest

from tests.sandbox.http_client import StartSandbox, lead


def test_a_list_of_leads_is_created(start_sandbox: StartSandbox) -> None:
    """A list gets 201, and each lead is recorded once."""
    api = start_sandbox()
    answer = api.create([lead("a"), lead("b", age=7)])
    assert answer.status_code == 201
    assert api.handle.store.creations("C1") == {"a": 1, "b": 1}


def test_one_bare_object_is_created(start_sandbox: StartSandbox) -> None:
    """The document's shell sample posts no list."""
    api = start_sandbox()
    assert api.create(lead(1)).status_code == 201
    assert api.ids() == ["1"]


def test_pages_and_filters(start_sandbox: StartSandbox) -> None:
    """Page and page_size cut the range; lead_id and the window choose it."""
    api = start_sandbox()
    api.create([lead(f"{n}") for n in range(5)])
    for n in range(4):
        api.process(f"{n}", processed_at=1000 + n)
    assert api.ids(page=2, page_size=2) == ["2", "3"]
    assert api.ids(lead_id="3") == ["3"]
    assert api.ids(processed_after=1001, processed_before=1002) == ["1", "2"]
    assert api.ids(processed_after=0) == ["0", "1", "2", "3"]
    assert api.ids(lead_id="3", processed_after=1004) == []
    assert api.ids(lead_id="4", processed_before=9999) == []
    assert api.ids(lead_id="unknown") == []
    assert api.ids(min_called_at=1) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    "params",
    [{"page": "x"}, {"page": 0}, {"page_size": 0}, {"processed_after": "2020-01-01"}, {"page": ""}],
)
def test_wrong_parameters_are_refused(start_sandbox: StartSandbox, params: dict[str, Any]) -> None:
    """A parameter that is no whole number gets 400 with the reason."""
    answer = start_sandbox().read(**params)
    assert answer.status_code == 400
    assert "must be" in answer.json()["detail"]


def test_a_disabled_lead_gets_201_and_no_outcome(start_sandbox: StartSandbox) -> None:
    """Outreach stops: what was still to come does not come."""
    api = start_sandbox(pace=1000.0)
    api.create([lead("a"), lead("b")])
    assert api.disable("a").status_code == 201
    api.handle.change_rules(clock_offset=1_000_000)
    assert api.ids(processed_after=0) == ["b"]
    assert set(api.handle.store.disabled("C1")) == {"a"}


def test_only_json_is_read(start_sandbox: StartSandbox) -> None:
    """Another content type is a bad payload."""
    api = start_sandbox()
    headers = {"Content-Type": "text/plain"}
    path = "/api/v1/leads/create/C1/"
    assert api.call("POST", path, data=b"[]", headers=headers).status_code == 400


def test_bad_lead_rule_lead(start_sandbox: StartSandbox) -> None:
    """201, the good leads created, the bad ones listed one by one."""
    api = start_sandbox(bad_lead="lead")
    answer = api.create([lead("a"), lead("b", state_code="?"), lead("c")])
    assert answer.status_code == 201
    assert [error["lead_id"] for error in answer.json()["errors"]] == ["b"]
    assert set(api.handle.store.creations("C1")) == {"a", "c"}


def test_bad_lead_rule_anonymous(start_sandbox: StartSandbox) -> None:
    """400 that does not name the bad lead."""
    answer = start_sandbox(bad_lead="batch-anonymous").create(
        [lead("a"), lead("b", state_code="?")]
    )
    assert answer.status_code == 400
    assert set(answer.json()) == {"detail"}


def test_repeat_rule_error(start_sandbox: StartSandbox) -> None:
    """A lead that exists is an error, also within one batch; the offer is counted."""
    api = start_sandbox(bad_lead="lead")
    api.create([lead("a")])
    answer = api.create([lead("a"), lead("b"), lead("b")])
    assert [error["index"] for error in answer.json()["errors"]] == [0, 2]
    assert "already exists" in answer.text
    assert api.handle.store.creations("C1") == {"a": 1, "b": 1}
    assert api.handle.store.offers("C1")["a"] == 2


@pytest.mark.parametrize(
    ("rule", "status", "disabled"),
    [("404", 404, set()), ("400", 400, set()), ("lead", 201, {"a"}), ("ignore", 201, {"a"})],
)
def test_unknown_disable_rule(
    start_sandbox: StartSandbox, rule: str, status: int, disabled: set[str]
) -> None:
    """What an unknown id does to the request that names it."""
    api = start_sandbox(unknown_disable=rule)
    api.create([lead("a")])
    answer = api.disable("a", "unknown")
    assert answer.status_code == status
    assert set(api.handle.store.disabled("C1")) == disabled
    assert ("unknown" in answer.text) == (rule != "ignore")


def test_numeric_ids_rule(start_sandbox: StartSandbox) -> None:
    """Ids must be JSON numbers, as in each sample of the document."""
    api = start_sandbox(numeric_ids=True)
    refused = api.create([lead("1")])
    assert refused.status_code == 400
    assert "lead_id: A valid integer is required." in refused.text
    assert api.create([lead(1)]).status_code == 201
    assert api.disable("1").status_code == 400
    assert api.disable(1).status_code == 201
    assert set(api.handle.store.disabled("C1")) == {"1"}


def test_disable_entries_need_a_lead_id(start_sandbox: StartSandbox) -> None:
    """400 for an entry without one."""
    assert start_sandbox().disable(None).status_code == 400


def test_campaigns_rule(start_sandbox: StartSandbox) -> None:
    """With known campaigns, another one is not found."""
    api = start_sandbox(campaigns={"C1": "One"})
    assert api.read("C1").status_code == 200
    assert api.read("C2").status_code == 404


def test_max_batch_rule(start_sandbox: StartSandbox) -> None:
    """One lead too many refuses the batch."""
    api = start_sandbox(max_batch=2)
    assert api.create([lead(n) for n in range(3)]).status_code == 400
    assert api.create([lead(n) for n in range(2)]).status_code == 201


def test_max_body_bytes_rule(start_sandbox: StartSandbox) -> None:
    """A body that is too large gets 413."""
    api = start_sandbox(max_body_bytes=300)
    assert api.create([lead(n) for n in range(9)]).status_code == 413
    assert api.create([lead(1)]).status_code == 201


def test_max_page_size_rule(start_sandbox: StartSandbox) -> None:
    """Capped in silence, or refused."""
    api = start_sandbox(max_page_size=2)
    api.create([lead(n) for n in range(5)])
    assert api.ids(page_size=100) == ["0", "1"]
    assert api.ids(page_size=100, page=3) == ["4"]
    api.handle.change_rules(page_size_above_max="400")
    assert api.read(page_size=3).status_code == 400


@pytest.mark.parametrize("rule", ["400", "422", "500"])
def test_max_page_rule(start_sandbox: StartSandbox, rule: str) -> None:
    """Pages that are too far from the first are refused, whether they hold a row or not."""
    api = start_sandbox(max_page=2, page_above_max=rule)
    api.create([lead(n) for n in range(5)])
    statuses = [api.read(page=page, page_size=2).status_code for page in (1, 2, 3, 4)]
    assert statuses == [200, 200, int(rule), int(rule)]
    assert api.read(page=2, page_size=3).status_code == 200


@pytest.mark.parametrize("rule", ["502", "413", "500"])
def test_max_answer_rules(start_sandbox: StartSandbox, rule: str) -> None:
    """An answer with too many rows or bytes is refused; so many rows or bytes are allowed."""
    api = start_sandbox(max_answer_rows=3, answer_above_max=rule)
    api.create([lead(n) for n in range(5)])
    statuses = [api.read(page=page, page_size=4).status_code for page in (1, 2)]
    assert statuses == [int(rule), 200]
    whole = api.read(page_size=3)
    assert len(whole.json()["results"]) == 3
    api.handle.change_rules(max_answer_rows=None, max_answer_bytes=len(whole.content))
    assert api.read(page_size=3).status_code == 200
    api.handle.change_rules(max_answer_bytes=len(whole.content) - 1)
    assert api.read(page_size=3).status_code == int(rule)
    assert api.read(page_size=2).status_code == 200


def test_doubled_rule(start_sandbox: StartSandbox) -> None:
    """A join without DISTINCT: the lead is shown twice and counted twice, on one page or on two."""
    api = start_sandbox(doubled=("1",))
    api.create([lead(f"{n}") for n in range(3)])
    assert api.read().json()["count"] == 4
    assert api.ids() == ["0", "1", "1", "2"]
    assert [api.ids(page=page, page_size=2) for page in (1, 2)] == [["0", "1"], ["1", "2"]]


def test_hidden_rule(start_sandbox: StartSandbox) -> None:
    """The count of a window with the lead is higher than its rows by one; another one is right."""
    api = start_sandbox(hidden=("1",))
    api.create([lead(f"{n}") for n in range(3)])
    for n in range(3):
        api.process(f"{n}", processed_at=1000 + n)
    assert (api.read(processed_after=0).json()["count"], api.ids()) == (3, ["0", "2"])
    assert api.ids(page=2, page_size=2) == []
    assert api.read(processed_after=1001, processed_before=1001).json()["count"] == 1
    assert api.read(processed_after=1002).json()["count"] == 1


@pytest.mark.parametrize(
    ("rule", "shown"), [("null", None), ("empty", {}), ("deleted", {"deleted": True})]
)
def test_redacted_rule(start_sandbox: StartSandbox, rule: str, shown: Any) -> None:
    """The row is counted, and holds nothing of the lead."""
    api = start_sandbox(redacted=("1",), redacted_as=rule)
    api.create([lead(f"{n}") for n in range(3)])
    page = api.read().json()
    assert page["count"] == 3
    assert page["results"][1] == shown
    assert [row["lead_id"] for row in page["results"][::2]] == ["0", "2"]


@pytest.mark.parametrize("order", ["created", "processed", "processed-desc"])
def test_ties_rule(start_sandbox: StartSandbox, order: str) -> None:
    """A row comes on two pages and another row on none, however often the pages are read."""
    api = start_sandbox(ties="page", order=order)
    api.create([lead(f"{n}") for n in range(30)])
    api.process(*(f"{n}" for n in range(30)), processed_at=1000)
    readings = [
        [api.ids(processed_after=0, page=page, page_size=5) for page in range(1, 7)]
        for _ in range(3)
    ]
    shown = [lead_id for page in readings[0] for lead_id in page]
    assert len(shown) == 30 > len(set(shown))
    assert readings[0] == readings[1] == readings[2]
    assert len(set(api.ids(processed_after=0, page_size=30))) == 30


def test_ties_are_no_other_order(start_sandbox: StartSandbox) -> None:
    """Leads that the order does not rank alike keep it."""
    api = start_sandbox(ties="page", order="processed")
    api.create([lead(f"{n}") for n in range(9)])
    for n in range(9):
        api.process(f"{n}", processed_at=1000 - n)
    pages = [api.ids(processed_after=0, page=page, page_size=3) for page in (1, 2, 3)]
    shown = [lead_id for page in pages for lead_id in page]
    assert shown == [f"{n}" for n in reversed(range(9))]


def test_page_beyond_last_rule(start_sandbox: StartSandbox) -> None:
    """404, or an empty page; the first page is never beyond."""
    api = start_sandbox()
    assert api.read(page=1).status_code == 200
    assert api.read(page=2).status_code == 404
    api.handle.change_rules(page_beyond_last="empty")
    assert api.read(page=2).json()["results"] == []


def test_window_unit_rule(start_sandbox: StartSandbox) -> None:
    """An API that takes seconds reads milliseconds as a far future."""
    api = start_sandbox(window_unit="s")
    api.create([lead("a")])
    api.process("a", processed_at=1_500_000)
    assert api.ids(processed_after=1500, processed_before=1500) == ["a"]
    assert api.ids(processed_after=1_500_000) == []


@pytest.mark.parametrize(("rule", "counts"), [("query", [3, 3]), ("page", [2, 1])])
def test_count_rule(start_sandbox: StartSandbox, rule: str, counts: list[int]) -> None:
    """`count` is that of the query, or of the page alone, as the sample can be read."""
    api = start_sandbox(count=rule)
    api.create([lead(n) for n in range(3)])
    assert [api.read(page=page, page_size=2).json()["count"] for page in (1, 2)] == counts


@pytest.mark.parametrize(
    ("rule", "named"),
    [("right", [True, False]), ("always", [True, True]), ("never", [False, False])],
)
def test_next_rule(start_sandbox: StartSandbox, rule: str, named: list[bool]) -> None:
    """`next` names a page where there is one, or behind the last one too, or not even before it."""
    api = start_sandbox(next=rule)
    api.create([lead(n) for n in range(3)])
    pages = [api.read(page=page, page_size=2).json() for page in (1, 2)]
    assert [page["next"] is not None for page in pages] == named
