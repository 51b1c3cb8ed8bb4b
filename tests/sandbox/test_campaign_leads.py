import pytest

from tests.sandbox.http_client import StartSandbox, lead


def test_a_lead_put_in_again_is_processed_again(start_sandbox: StartSandbox) -> None:
    """It leaves its old place in the order of time."""
    api = start_sandbox(order="processed")
    api.create([lead("a"), lead("b")])
    api.process("a", processed_at=5)
    api.process("b", processed_at=6)
    api.process("a", processed_at=7)
    assert api.ids(processed_after=0) == ["b", "a"]
    assert api.ids(processed_before=5) == []
    assert api.ids(processed_after=7) == ["a"]


def test_outcomes_need_not_be_put_in_in_the_order_of_time(start_sandbox: StartSandbox) -> None:
    """A window finds what was processed in it, in whatever order the outcomes came."""
    api = start_sandbox()
    api.create([lead("a"), lead("b")])
    api.process("a", processed_at=5)
    api.process("b", processed_at=3)
    assert api.ids(processed_before=4) == ["b"]
    assert api.ids(processed_after=4) == ["a"]


@pytest.mark.parametrize(
    ("order", "windowed", "everything"),
    [
        ("created", ["b", "c", "a"], ["b", "d", "c", "a"]),
        ("processed", ["a", "b", "c"], ["d", "a", "b", "c"]),
        ("processed-desc", ["c", "b", "a"], ["c", "b", "a", "d"]),
        ("lead_id", ["a", "b", "c"], ["a", "b", "c", "d"]),
    ],
)
def test_order_rule(
    start_sandbox: StartSandbox, order: str, windowed: list[str], everything: list[str]
) -> None:
    """The order of results holds with a window and without."""
    api = start_sandbox(order=order)
    api.create([lead(name) for name in "bdca"])
    for at, name in ((30, "c"), (10, "a"), (20, "b")):
        api.process(name, processed_at=at)
    assert api.ids(processed_after=0) == windowed
    assert api.ids() == everything


def test_order_rule_random_is_stable(start_sandbox: StartSandbox) -> None:
    """Not the order of creation, but the same on every reading."""
    api = start_sandbox(order="random")
    api.create([lead(f"{n:02}") for n in range(20)])
    first = api.ids()
    assert first == api.ids()
    assert first != sorted(first) == sorted(api.ids())


@pytest.mark.parametrize("after_inclusive", [True, False])
@pytest.mark.parametrize("before_inclusive", [True, False])
def test_window_bounds_rules(
    start_sandbox: StartSandbox, after_inclusive: bool, before_inclusive: bool
) -> None:
    """Each bound can be taken as inclusive or exclusive, for pages and single leads alike."""
    api = start_sandbox(after_inclusive=after_inclusive, before_inclusive=before_inclusive)
    api.create([lead(name) for name in "abc"])
    for at, name in ((10, "a"), (20, "b"), (30, "c")):
        api.process(name, processed_at=at)
    shown = ["a"] * after_inclusive + ["b"] + ["c"] * before_inclusive
    window = {"processed_after": 10, "processed_before": 30}
    assert api.ids(**window) == shown
    assert [n for n in "abc" if api.ids(lead_id=n, **window)] == shown


def test_shows_unprocessed_rule(start_sandbox: StartSandbox) -> None:
    """Whether a lead that is created and not processed can be read back."""
    api = start_sandbox(shows_unprocessed=False)
    api.create([lead("a"), lead("b")])
    api.process("b")
    assert api.ids() == ["b"]
    assert api.ids(lead_id="a") == []
    assert api.ids(lead_id="b") == ["b"]


def test_lead_visible_after_rule(start_sandbox: StartSandbox) -> None:
    """A new lead shows late, in lists and by its id."""
    api = start_sandbox(lead_visible_after=100)
    api.create([lead("a")])
    assert (api.ids(), api.ids(lead_id="a")) == ([], [])
    api.handle.change_rules(clock_offset=101)
    assert (api.ids(), api.ids(lead_id="a")) == (["a"], ["a"])
