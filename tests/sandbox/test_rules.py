import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from leadloop.sandbox import Rules
from leadloop.sandbox.request_log import count_busiest_window
from tests.sandbox.http_client import Visitor, lead

Visit = Callable[..., Visitor]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"lead_id": None}, "lead_id"),
        ({"lead_id": "  "}, "lead_id"),
        ({"lead_id": True}, "lead_id"),
        ({"lead_id": 1.5}, "lead_id"),
        ({"phone_number": None}, "phone_number"),
        ({"phone_number": "call me"}, "phone_number"),
        ({"phone_number": "+1 212 555 0123"}, "phone_number"),
        ({"contact_name": ""}, "contact_name"),
        ({"contact_name": 5}, "contact_name"),
        ({"state_code": "New York"}, "state_code"),
        ({"state_code": None}, "state_code"),
        ({"ebr_datetime": "yesterday"}, "ebr_datetime"),
    ],
)
def test_a_bad_lead_is_refused_with_its_field(visit: Visit, change: Any, word: str) -> None:
    """The reason names the field, and the batch is refused whole."""
    api = visit()
    answer = api.create([lead("good"), {**lead("bad"), **change}])
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["index"] == 1
    assert word in error["reason"]
    assert api.handle.books.creations("C1") == {}


def test_the_reason_never_repeats_what_was_sent(visit: Visit) -> None:
    """A client that logs the reason logs no phone number."""
    assert "letters" not in visit().create([lead("a", phone_number="letters")]).text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"5", b'["x"]', b"null"])
def test_a_body_that_holds_no_leads_is_refused(visit: Visit, body: bytes) -> None:
    """400 with a reason."""
    path, headers = "/api/v1/leads/create/C1/", {"Content-Type": "application/json"}
    answer = visit().call("POST", path, data=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_only_json_is_read(visit: Visit) -> None:
    """Another content type is a bad payload."""
    api = visit()
    headers = {"Content-Type": "text/plain"}
    path = "/api/v1/leads/create/C1/"
    assert api.call("POST", path, data=b"[]", headers=headers).status_code == 400


@pytest.mark.parametrize(
    ("rule", "number", "status"),
    [
        ("digits", "919899550412", 201),
        ("e164", "919899550412", 400),
        ("e164", "+919899550412", 201),
        ("nanp", "+919899550412", 400),
        ("nanp", "+12125550123", 201),
        ("nanp", 2125550123, 201),
        ("nanp", "+11115550123", 400),
    ],
)
def test_phone_rule(visit: Visit, rule: str, number: Any, status: int) -> None:
    """How plausible a number must be can be set."""
    assert visit(phone=rule).create([lead("a", phone_number=number)]).status_code == status


def test_newer_limits_rule(visit: Visit) -> None:
    """The caps of the vendor's later integration, off by default."""
    long = [lead("x" * 256), lead("b", contact_name="n" * 49), lead("c", phone_number="1" * 13)]
    assert visit().create(long).status_code == 201
    assert len(visit(newer_limits=True).create(long).json()["errors"]) == 3


def test_required_rule(visit: Visit) -> None:
    """The document's own samples have no state_code."""
    bare = {"lead_id": 1, "phone_number": "12125550123", "contact_name": "Ann"}
    assert visit().create(bare).status_code == 400
    api = visit(required=("lead_id", "phone_number", "contact_name"))
    assert api.create(bare).status_code == 201


def test_bad_lead_rule_lead(visit: Visit) -> None:
    """201, the good ones created, the bad ones told one by one."""
    api = visit(bad_lead="lead")
    answer = api.create([lead("a"), lead("b", state_code="?"), lead("c")])
    assert answer.status_code == 201
    assert [error["lead_id"] for error in answer.json()["errors"]] == ["b"]
    assert set(api.handle.books.creations("C1")) == {"a", "c"}


def test_bad_lead_rule_anonymous(visit: Visit) -> None:
    """400 that does not say which one it was."""
    answer = visit(bad_lead="batch-anonymous").create([lead("a"), lead("b", state_code="?")])
    assert answer.status_code == 400
    assert set(answer.json()) == {"detail"}


def test_repeat_rule_error(visit: Visit) -> None:
    """A lead that exists is an error, also within one batch; the offer is counted."""
    api = visit(bad_lead="lead")
    api.create([lead("a")])
    answer = api.create([lead("a"), lead("b"), lead("b")])
    assert [error["index"] for error in answer.json()["errors"]] == [0, 2]
    assert "already exists" in answer.text
    assert api.handle.books.creations("C1") == {"a": 1, "b": 1}
    assert api.handle.books.offers("C1")["a"] == 2


def test_repeat_rule_update(visit: Visit) -> None:
    """The lead is the same one with the newer data."""
    api = visit(repeat="update")
    api.create([lead("a")])
    api.create([lead("a", contact_name="Bea")])
    assert [row["contact_name"] for row in api.read().json()["results"]] == ["Bea"]
    assert api.handle.books.creations("C1") == {"a": 2}
    assert api.handle.books.violations == []


def test_repeat_rule_second(visit: Visit) -> None:
    """A second lead is a second call, and the books say so."""
    api = visit(repeat="second")
    api.create([lead("a")])
    api.create([lead("a")])
    assert api.ids() == ["a", "a"]
    assert api.ids(lead_id="a") == ["a", "a"]
    assert [v.lead_id for v in api.handle.books.violations] == ["a"]
    assert api.handle.books.summarize_campaigns()["C1"]["created_twice"] == 1


@pytest.mark.parametrize(
    ("rule", "status", "disabled"),
    [("404", 404, set()), ("400", 400, set()), ("lead", 201, {"a"}), ("ignore", 201, {"a"})],
)
def test_unknown_disable_rule(visit: Visit, rule: str, status: int, disabled: set[str]) -> None:
    """What an unknown id does to the request that names it."""
    api = visit(unknown_disable=rule)
    api.create([lead("a")])
    answer = api.disable("a", "nobody")
    assert answer.status_code == status
    assert set(api.handle.books.disabled("C1")) == disabled
    assert ("nobody" in answer.text) == (rule != "ignore")


def test_disable_entries_need_a_lead_id(visit: Visit) -> None:
    """400 for an entry without one."""
    assert visit().disable(None).status_code == 400


def test_campaigns_rule(visit: Visit) -> None:
    """With known campaigns, another one is not found."""
    api = visit(campaigns={"C1": "One"})
    assert api.read("C1").status_code == 200
    assert api.read("C2").status_code == 404


def test_max_batch_rule(visit: Visit) -> None:
    """One lead too many refuses the batch."""
    api = visit(max_batch=2)
    assert api.create([lead(n) for n in range(3)]).status_code == 400
    assert api.create([lead(n) for n in range(2)]).status_code == 201


def test_max_body_bytes_rule(visit: Visit) -> None:
    """A body that is too large gets 413."""
    api = visit(max_body_bytes=300)
    assert api.create([lead(n) for n in range(9)]).status_code == 413
    assert api.create([lead(1)]).status_code == 201


def test_max_page_size_rule(visit: Visit) -> None:
    """Capped in silence, or refused."""
    api = visit(max_page_size=2)
    api.create([lead(n) for n in range(5)])
    assert api.ids(page_size=100) == ["0", "1"]
    assert api.ids(page_size=100, page=3) == ["4"]
    api.handle.change(page_size_above_max="400")
    assert api.read(page_size=3).status_code == 400


def test_page_beyond_last_rule(visit: Visit) -> None:
    """404, or an empty page; the first page is never beyond."""
    api = visit()
    assert api.read(page=1).status_code == 200
    assert api.read(page=2).status_code == 404
    api.handle.change(page_beyond_last="empty")
    assert api.read(page=2).json()["results"] == []


@pytest.mark.parametrize(
    ("order", "windowed", "everything"),
    [
        ("created", ["b", "c", "a"], ["b", "d", "c", "a"]),
        ("processed", ["a", "b", "c"], ["d", "a", "b", "c"]),
        ("processed-desc", ["c", "b", "a"], ["c", "b", "a", "d"]),
        ("lead_id", ["a", "b", "c"], ["a", "b", "c", "d"]),
    ],
)
def test_order_rule(visit: Visit, order: str, windowed: list[str], everything: list[str]) -> None:
    """The order of results holds with a window and without."""
    api = visit(order=order)
    api.create([lead(name) for name in "bdca"])
    for at, name in ((30, "c"), (10, "a"), (20, "b")):
        api.process(name, processed_at=at)
    assert api.ids(processed_after=0) == windowed
    assert api.ids() == everything


def test_order_rule_random_is_stable(visit: Visit) -> None:
    """Not the order of creation, but the same on every reading."""
    api = visit(order="random")
    api.create([lead(f"{n:02}") for n in range(20)])
    first = api.ids()
    assert first == api.ids()
    assert first != sorted(first) == sorted(api.ids())


@pytest.mark.parametrize("after_inclusive", [True, False])
@pytest.mark.parametrize("before_inclusive", [True, False])
def test_window_bounds_rules(visit: Visit, after_inclusive: bool, before_inclusive: bool) -> None:
    """Each bound can be taken as inclusive or exclusive, for pages and single leads alike."""
    api = visit(after_inclusive=after_inclusive, before_inclusive=before_inclusive)
    api.create([lead(name) for name in "abc"])
    for at, name in ((10, "a"), (20, "b"), (30, "c")):
        api.process(name, processed_at=at)
    shown = ["a"] * after_inclusive + ["b"] + ["c"] * before_inclusive
    window = {"processed_after": 10, "processed_before": 30}
    assert api.ids(**window) == shown
    assert [n for n in "abc" if api.ids(lead_id=n, **window)] == shown


def test_window_unit_rule(visit: Visit) -> None:
    """An API that takes seconds reads milliseconds as a far future."""
    api = visit(window_unit="s")
    api.create([lead("a")])
    api.process("a", processed_at=1_500_000)
    assert api.ids(processed_after=1500, processed_before=1500) == ["a"]
    assert api.ids(processed_after=1_500_000) == []


def test_time_format_rule(visit: Visit) -> None:
    """Milliseconds, seconds, or ISO with an offset."""
    api = visit()
    api.create([lead("a")])
    api.process("a", processed_at=1_531_409_739_413)
    seen = []
    for unit in ("ms", "s", "iso"):
        api.handle.change(time_format=unit)
        seen.append(api.read().json()["results"][0]["processed_at"])
    assert seen[:2] == [1_531_409_739_413, 1_531_409_739]
    assert datetime.fromisoformat(seen[2]).timestamp() == 1_531_409_739.413


def test_lead_id_answer_rule(visit: Visit) -> None:
    """As text, or as integers where nothing is lost by it."""
    api = visit()
    api.create([lead(10), lead("007"), lead("x1")])
    assert api.ids() == ["10", "007", "x1"]
    api.handle.change(lead_id_answer="integer")
    assert api.ids() == [10, "007", "x1"]


def test_shows_unprocessed_rule(visit: Visit) -> None:
    """Whether a lead that is created and not processed can be read back."""
    api = visit(shows_unprocessed=False)
    api.create([lead("a"), lead("b")])
    api.process("b")
    assert api.ids() == ["b"]
    assert api.ids(lead_id="a") == []
    assert api.ids(lead_id="b") == ["b"]


def test_lead_visible_after_rule(visit: Visit) -> None:
    """A new lead shows late, in lists and by its id."""
    api = visit(lead_visible_after=100)
    api.create([lead("a")])
    assert (api.ids(), api.ids(lead_id="a")) == ([], [])
    api.handle.change(clock_offset=101)
    assert (api.ids(), api.ids(lead_id="a")) == (["a"], ["a"])


def test_pace_and_outcome_visible_after_rules(visit: Visit) -> None:
    """Outcomes come in time, and may be seen only later with their older processed_at."""
    api = visit(pace=10, outcome_visible_after=500)
    api.create([lead(n) for n in range(50)])
    assert api.ids(processed_after=0) == []
    api.handle.change(clock_offset=400)
    assert api.ids(processed_after=0) == []
    api.handle.change(clock_offset=1000)
    rows = api.read(processed_after=0).json()["results"]
    assert len(rows) == 50
    waits = [(row["processed_at"] - row["created_at"]) / 1000 for row in rows]
    assert 5 < sum(waits) / 50 < 20
    assert all(row["outcome_name"] and row["call_attempt_keys"] for row in rows)


def test_latency_rule(visit: Visit) -> None:
    """An answer takes so long, and keeps nobody else from being served meanwhile."""
    api = visit(latency=3)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: api.create([lead(n)]), range(8)))
    assert min(answer.elapsed.total_seconds() for answer in answers) >= 3
    arrived = [entry.arrived for entry in api.handle.requests]
    assert max(arrived) - min(arrived) < 3


def test_late_rules(visit: Visit) -> None:
    """A share of the outcomes is late."""
    api = visit(pace=1, late_share=0.5, late_by=1000, clock_offset=0)
    api.create([lead(n) for n in range(100)])
    api.handle.change(clock_offset=100)
    assert 25 < api.read(processed_after=0).json()["count"] < 75
    api.handle.change(clock_offset=1200)
    assert api.read(processed_after=0).json()["count"] == 100


def test_seed_rule_tells_the_same_story(visit: Visit) -> None:
    """Equal seeds give equal outcomes, reading by reading; other seeds give others."""

    def story(seed: int) -> list[Any]:
        api = visit(pace=1, seed=seed)
        api.create([lead(n) for n in range(30)])
        api.handle.change(clock_offset=100)
        rows = api.read(processed_after=0).json()["results"]
        assert rows == api.read(processed_after=0).json()["results"]
        return [(row["lead_id"], row["outcome_id"], row["total_cost"]) for row in rows]

    assert story(1) == story(1) != story(2)


def test_drawn_outcomes_are_of_every_documented_kind(visit: Visit) -> None:
    """Among a few hundred: several attempts, answers, SMS, email, IVR, pending costs."""
    api = visit(pace=1)
    api.create([lead(n) for n in range(400)])
    api.handle.change(clock_offset=100)
    rows = api.read(processed_after=0, page_size=400).json()["results"]
    keys = {key for row in rows for key in row}
    assert {"sms_follow_up", "gmail_summary", "ivr_reminder"} <= keys
    assert "PENDING OR NOT AVAILABLE" in str(rows)
    calls = [row[row["call_attempt_keys"][0]] for row in rows]
    assert {len(attempts) for attempts in calls} == {1, 2, 3}
    answered = [a for attempts in calls for a in attempts if a["report_keys_order"]]
    assert answered
    assert all(set(a["report_keys_order"]) <= set(a) for a in answered)
    references = [a["reference_id"] for attempts in calls for a in attempts]
    assert len(set(references)) == len(references)


def test_links_are_a_trap_by_default(visit: Visit) -> None:
    """Plain http, the vendor's host, and the filters are gone, as in the sample."""
    api = visit(link_base="http://elsewhere.example")
    api.create([lead(n) for n in range(3)])
    api.process("0", "1", "2")
    page = api.read(processed_after=0, page=2, page_size=1).json()
    path = "http://elsewhere.example/api/v1/leads/responses/C1/"
    assert page["next"] == f"{path}?page=3&page_size=1"
    assert page["previous"] == f"{path}?page=1&page_size=1"


def test_links_rule_correct(visit: Visit) -> None:
    """The whole link: this host, and every filter."""
    api = visit(links="correct")
    api.create([lead(n) for n in range(3)])
    api.process("0", "1", "2")
    link = api.read(processed_after=5, page_size=2).json()["next"]
    assert link.startswith(api.handle.url)
    assert "processed_after=5" in link
    rest = api.call("GET", link.removeprefix(api.handle.url)).json()
    assert [row["lead_id"] for row in rest["results"]] == ["2"]


@pytest.mark.parametrize(("rule", "counts"), [("query", [3, 3]), ("page", [2, 1])])
def test_count_rule(visit: Visit, rule: str, counts: list[int]) -> None:
    """`count` is that of the query, or of the page alone, as the sample can be read."""
    api = visit(count=rule)
    api.create([lead(n) for n in range(3)])
    assert [api.read(page=page, page_size=2).json()["count"] for page in (1, 2)] == counts


@pytest.mark.parametrize(
    ("rule", "named"),
    [("right", [True, False]), ("always", [True, True]), ("never", [False, False])],
)
def test_next_rule(visit: Visit, rule: str, named: list[bool]) -> None:
    """`next` names a page where there is one, or behind the last one too, or not even before it."""
    api = visit(next=rule)
    api.create([lead(n) for n in range(3)])
    pages = [api.read(page=page, page_size=2).json() for page in (1, 2)]
    assert [page["next"] is not None for page in pages] == named


def test_the_rate_limit_is_a_sliding_window(visit: Visit) -> None:
    """No window of that length lets more through, and room comes back request by request."""
    api = visit(rate_limit=(5, 1))
    statuses: list[int] = []
    while statuses.count(200) < 11:
        statuses.append(api.read().status_code)
        time.sleep(0.01)
    passed = [e.arrived for e in api.handle.requests if e.status == 200]
    assert set(statuses) == {200, 429}
    assert count_busiest_window(passed, 1) == 5


@pytest.mark.parametrize("told", [True, False])
def test_retry_after_rule(visit: Visit, told: bool) -> None:
    """A 429 may say how long to wait, in seconds; it counts over every route."""
    api = visit(rate_limit=(2, 60), retry_after=told)
    api.create([lead("a")])
    api.disable("a")
    answer = api.read()
    assert answer.status_code == 429
    assert ("Retry-After" in answer.headers) == told
    assert not told or 55 < int(answer.headers["Retry-After"]) <= 61


def test_the_busiest_window_counts_every_window() -> None:
    """Half-open windows of the length asked for, wherever they start."""
    assert count_busiest_window([], 1) == 0
    assert count_busiest_window([0.0, 0.5, 0.9, 1.0, 1.4], 1) == 4
    assert count_busiest_window([0.0, 1.0, 2.0], 1) == 1


def test_rules_come_from_texts() -> None:
    """The command line's key=value texts, of each type."""
    reading = ["shows_unprocessed=no", "order=lead_id", "links=correct", "late_share=0.5"]
    lists = ["campaigns=C1:One,C2", "tokens=a,b"]
    rules = Rules.from_texts(["max_batch=10", "rate_limit=5/2.5", "pace=none", *reading, *lists])
    assert (rules.max_batch, rules.rate_limit, rules.pace) == (10, (5, 2.5), None)
    assert (rules.shows_unprocessed, rules.order, rules.late_share) == (False, "lead_id", 0.5)
    assert (rules.campaigns, rules.tokens) == ({"C1": "One", "C2": "C2"}, ("a", "b"))
    assert Rules.from_texts([]).rate_limit == (100, 60.0)
    assert Rules().rate_limit is None


@pytest.mark.parametrize(
    "text",
    [
        "max_batch",
        "max_batch=x",
        "max_batch=0",
        "nonsense=1",
        "order=up",
        "rate_limit=5",
        "rate_limit=0/5",
        "shows_unprocessed=perhaps",
        "pace=-1",
        "late_share=2",
        "campaigns={x",
    ],
)
def test_a_wrong_text_is_told_in_one_line(text: str) -> None:
    """One clear line, which the command line can print."""
    with pytest.raises(ValueError, match=r"\A.+\Z") as caught:
        Rules.from_texts([text])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", ["tokens=", "pace=nan", "late_by=inf", "rate_limit=1/nan"])
def test_a_rule_that_cannot_be_kept_is_refused(rule: str) -> None:
    """In one line that names it, before anything listens."""
    with pytest.raises(ValueError, match=rule.partition("=")[0]):
        Rules.from_texts([rule])


def test_every_rule_is_described_as_it_is_written() -> None:
    """What the help lists can be typed as it stands, and means the defaults."""
    lines = [line.partition("  ")[0] for line in Rules.described()]
    assert Rules.from_texts(lines) == Rules.from_texts([])
    assert len(lines) == len(dataclasses.fields(Rules))
