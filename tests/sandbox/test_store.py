import threading

import requests

from tests.sandbox.http_client import SandboxClient, StartSandbox, lead


def test_an_outcome_can_be_seen_later_than_it_was_processed(start_sandbox: StartSandbox) -> None:
    """`visible_at` is the only thing that a late outcome needs."""
    api = start_sandbox()
    api.create([lead("a")])
    now = api.handle.now()
    api.process("a", processed_at=now, visible_at=now + 50_000)
    assert api.ids(processed_after=0) == []
    api.handle.change_rules(clock_offset=51)
    assert api.ids(processed_after=now, processed_before=now) == ["a"]


def test_a_lead_with_a_stated_outcome_keeps_it(
    start_sandbox: StartSandbox,
) -> None:
    """The outcome that was drawn at creation does not overwrite it."""
    api = start_sandbox(pace=1)
    api.create([lead("a")])
    api.process("a", processed_at=5)
    api.handle.change_rules(clock_offset=1000)
    assert api.handle.store.processed("C1") == {"a": 5}


def test_many_callers_at_once(start_sandbox: StartSandbox) -> None:
    """Threads that create at the same time lose nothing."""
    api = start_sandbox()

    def push(first: int) -> None:
        with requests.Session() as session:
            for n in range(first, first + 50, 10):
                SandboxClient(api.handle, session).create([lead(i) for i in range(n, n + 10)])

    threads = [threading.Thread(target=push, args=(first,)) for first in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert api.handle.store.creations("C1") == {str(n): 1 for n in range(400)}


def test_repeat_rule_update(start_sandbox: StartSandbox) -> None:
    """The lead is the same one with the newer data."""
    api = start_sandbox(repeat="update")
    api.create([lead("a")])
    api.create([lead("a", contact_name="Bea")])
    assert [row["contact_name"] for row in api.read().json()["results"]] == ["Bea"]
    assert api.handle.store.creations("C1") == {"a": 2}
    assert api.handle.store.violations == []


def test_repeat_rule_second(start_sandbox: StartSandbox) -> None:
    """A second lead is a second call, and is recorded as a violation."""
    api = start_sandbox(repeat="second")
    api.create([lead("a")])
    api.create([lead("a")])
    assert api.ids() == ["a", "a"]
    assert api.ids(lead_id="a") == ["a", "a"]
    assert [v.lead_id for v in api.handle.store.violations] == ["a"]
    assert api.handle.store.summarize_campaigns()["C1"]["created_twice"] == 1


def test_pace_and_outcome_visible_after_rules(start_sandbox: StartSandbox) -> None:
    """Outcomes come in time, and may be seen only later with their older processed_at."""
    api = start_sandbox(pace=10, outcome_visible_after=500)
    api.create([lead(n) for n in range(50)])
    assert api.ids(processed_after=0) == []
    api.handle.change_rules(clock_offset=400)
    assert api.ids(processed_after=0) == []
    api.handle.change_rules(clock_offset=1000)
    rows = api.read(processed_after=0).json()["results"]
    assert len(rows) == 50
    waits = [(row["processed_at"] - row["created_at"]) / 1000 for row in rows]
    assert 5 < sum(waits) / 50 < 20
    assert all(row["outcome_name"] and row["call_attempt_keys"] for row in rows)


def test_late_rules(start_sandbox: StartSandbox) -> None:
    """A share of the outcomes is late."""
    api = start_sandbox(pace=1, late_share=0.5, late_by=1000, clock_offset=0)
    api.create([lead(n) for n in range(100)])
    api.handle.change_rules(clock_offset=100)
    assert 25 < api.read(processed_after=0).json()["count"] < 75
    api.handle.change_rules(clock_offset=1200)
    assert api.read(processed_after=0).json()["count"] == 100
