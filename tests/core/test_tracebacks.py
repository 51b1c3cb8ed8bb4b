from pathlib import Path

import pytest

from leadloop.core.leads import Lead
from leadloop.core.timestamps import parse_time_argument
from leadloop.core.tracebacks import find_origin, format_traceback


def fail_with(text: str) -> None:
    """Raise an error whose text, and whose cause's text, are given."""
    try:
        parse_time_argument(text)
    except ValueError as error:
        raise LookupError(text) from error


def test_a_traceback_has_places_and_types_and_no_text() -> None:
    """A developer sees where it came from; whom it was about, nobody does."""
    person = ", ".join(["Ann", "+14155550123"])
    with pytest.raises(LookupError) as caught:
        fail_with(person)
    shown = format_traceback(caught.value)
    assert "in fail_with" in shown
    assert "in parse_time_argument" in shown
    assert shown.index("ValueError") < shown.index("then:") < shown.rindex("LookupError")
    assert "Ann" not in shown
    assert "4155550123" not in shown


def test_a_circle_of_causes_ends() -> None:
    """Whatever a library has linked."""
    first, second = ValueError(), KeyError()
    first.__context__, second.__context__ = second, first
    assert format_traceback(first) == "KeyError\nthen:\nValueError"


def test_the_origin_is_the_last_place_in_our_code() -> None:
    """A library that our code called is where it shows, not where it comes from."""
    with pytest.raises(ValueError, match="not a time") as caught:
        parse_time_argument("soon")
    path, _, line = find_origin(caught.value).partition(":")
    assert path == "leadloop/core/timestamps.py"
    source = Path(__file__).parents[2].joinpath(path).read_text(encoding="utf-8").splitlines()
    assert "raise ValueError" in source[int(line) - 1]
    with pytest.raises(TypeError) as caught_in_test:
        Lead()  # type: ignore[call-arg]
    assert find_origin(caught_in_test.value) == "an unknown place"
