from datetime import datetime
from typing import Any

from tests.sandbox.http_client import StartSandbox, lead

FIXED = {
    "lead_id", "phone_number", "contact_name", "created_at", "campaign_id", "campaign_name",
    "country_code", "state_code", "call_attempt_keys", "last_call_attempt_keys", "total_cost",
}  # fmt: skip


def test_an_unprocessed_result_has_the_documented_keys_and_the_custom_ones(
    start_sandbox: StartSandbox,
) -> None:
    """Fixed keys, custom fields, and none of the keys of a processed lead."""
    api = start_sandbox()
    api.create([lead("007", age=41, tags=["x", {"y": "\u0000é☎"}])])
    page = api.read().json()
    row = page["results"][0]
    assert (page["count"], page["next"], page["previous"]) == (1, None, None)
    assert set(row) >= FIXED
    assert not {"processed_at", "outcome_id", "outcome_name"} & set(row)
    assert (row["lead_id"], row["age"], row["tags"]) == ("007", 41, ["x", {"y": "\u0000é☎"}])
    assert row["campaign_id"] == "C1"
    assert abs(row["created_at"] - api.handle.now()) < 5_000


def test_a_processed_result_has_its_attempts_under_keys_that_it_names(
    start_sandbox: StartSandbox,
) -> None:
    """The list of attempts, the last one again as an object, and other blocks."""
    api = start_sandbox(campaigns={"C1": "Spring"})
    api.create([lead("a")])
    attempts: list[dict[str, Any]] = [{"reference_id": "r1"}, {"reference_id": "r2", "Q": "é"}]
    blocks = {"sms_hello": {"cost": "PENDING OR NOT AVAILABLE"}}
    api.process("a", processed_at=123, total_cost=1.5, attempts=attempts, blocks=blocks, note="n")
    row = api.read().json()["results"][0]
    assert row["call_attempt_keys"] == ["call_attempt_Spring_1"]
    assert row["last_call_attempt_keys"] == ["last_call_attempt_Spring_1"]
    assert row["call_attempt_Spring_1"] == attempts
    assert row["last_call_attempt_Spring_1"] == attempts[-1]
    assert (row["sms_hello"], row["note"]) == (blocks["sms_hello"], "n")
    assert (row["processed_at"], row["outcome_id"], row["outcome_name"]) == (123, 7, "Yes")
    assert row["total_cost"] == 1.5


def test_time_format_rule(start_sandbox: StartSandbox) -> None:
    """Milliseconds, seconds, microseconds, or ISO with an offset."""
    api = start_sandbox()
    api.create([lead("a")])
    api.process("a", processed_at=1_531_409_739_413)
    seen = []
    for unit in ("ms", "s", "us", "ns", "iso"):
        api.handle.change_rules(time_format=unit)
        seen.append(api.read().json()["results"][0]["processed_at"])
    ms = 1_531_409_739_413
    assert seen[:4] == [ms, 1_531_409_739, ms * 1000, ms * 1_000_000]
    assert datetime.fromisoformat(seen[4]).timestamp() == 1_531_409_739.413


def test_lead_id_answer_rule(start_sandbox: StartSandbox) -> None:
    """As text, or as numbers where nothing is lost by it."""
    api = start_sandbox()
    large = str(2**53 + 1)
    api.create([lead(10), lead("007"), lead("x1"), lead(large)])
    assert api.ids() == ["10", "007", "x1", large]
    api.handle.change_rules(lead_id_answer="integer")
    assert api.ids() == [10, "007", "x1", int(large)]
    api.handle.change_rules(lead_id_answer="float")
    assert '"lead_id":10.0,' in api.read().text
    assert api.ids()[1:] == ["007", "x1", large]


def test_links_are_a_trap_by_default(start_sandbox: StartSandbox) -> None:
    """Plain http, the vendor's host, and the filters are gone, as in the sample."""
    api = start_sandbox(link_base="http://elsewhere.example")
    api.create([lead(n) for n in range(3)])
    api.process("0", "1", "2")
    page = api.read(processed_after=0, page=2, page_size=1).json()
    path = "http://elsewhere.example/api/v1/leads/responses/C1/"
    assert page["next"] == f"{path}?page=3&page_size=1"
    assert page["previous"] == f"{path}?page=1&page_size=1"


def test_links_rule_correct(start_sandbox: StartSandbox) -> None:
    """The whole link: this host, and every filter."""
    api = start_sandbox(links="correct")
    api.create([lead(n) for n in range(3)])
    api.process("0", "1", "2")
    link = api.read(processed_after=5, page_size=2).json()["next"]
    assert link.startswith(api.handle.url)
    assert "processed_after=5" in link
    rest = api.call("GET", link.removeprefix(api.handle.url)).json()
    assert [row["lead_id"] for row in rest["results"]] == ["2"]
