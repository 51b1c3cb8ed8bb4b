from typing import Any

from tests.sandbox.http_client import StartSandbox, lead


def test_an_outcome_put_in_bare_is_drawn(start_sandbox: StartSandbox) -> None:
    """With neither outcome nor attempts stated, believable ones are made up."""
    api = start_sandbox()
    api.create([lead("a")])
    api.call_admin("POST", "outcomes", json=[{"campaign_id": "C1", "lead_id": "a"}])
    (row,) = api.read(processed_after=0).json()["results"]
    assert row["outcome_name"]
    assert row["call_attempt_keys"]


def test_seed_rule_repeats_the_same_story(start_sandbox: StartSandbox) -> None:
    """Equal seeds give equal outcomes, reading by reading; other seeds give others."""

    def story(seed: int) -> list[Any]:
        api = start_sandbox(pace=1, seed=seed)
        api.create([lead(n) for n in range(30)])
        api.handle.change_rules(clock_offset=100)
        rows = api.read(processed_after=0).json()["results"]
        assert rows == api.read(processed_after=0).json()["results"]
        return [(row["lead_id"], row["outcome_id"], row["total_cost"]) for row in rows]

    assert story(1) == story(1) != story(2)


def test_drawn_outcomes_are_of_every_documented_kind(start_sandbox: StartSandbox) -> None:
    """Among a few hundred: several attempts, answers, SMS, email, IVR, pending costs."""
    api = start_sandbox(pace=1)
    api.create([lead(n) for n in range(400)])
    api.handle.change_rules(clock_offset=100)
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
