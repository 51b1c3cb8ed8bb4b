"""The vocabulary of responses: what an operator would read as an error is one."""

import pytest

from leadloop.core.response_vocabulary import (
    KeyMeaning,
    classify_key,
    confirms_call,
    is_negated,
    means_failure,
    means_no_error,
    means_success,
)
from leadloop.core.verdicts import ApiCall


@pytest.mark.parametrize(
    ("key", "meaning"),
    [
        ("failed_leads", KeyMeaning.ERROR),
        ("errorCount", KeyMeaning.ERROR),
        ("not_created", KeyMeaning.ERROR),
        ("leadsCreated", KeyMeaning.SUCCESS),
        ("created_at", KeyMeaning.UNKNOWN),
        ("disabled_leads", KeyMeaning.UNKNOWN),
        ("total_leads", KeyMeaning.COUNT),
        ("lead_status", KeyMeaning.STATUS),
        ("message", KeyMeaning.MESSAGE),
        ("results", KeyMeaning.CONTAINER),
        ("lead_ids", KeyMeaning.CONTAINER),
        ("favourite_colour", KeyMeaning.UNKNOWN),
    ],
)
def test_keys_of_a_create(key: str, meaning: KeyMeaning) -> None:
    """By their words, however these are joined."""
    assert classify_key(key, ApiCall.CREATE) is meaning


def test_a_key_counts_as_success_for_its_own_call() -> None:
    """A disable confirms with other words than a create."""
    assert classify_key("disabled_leads", ApiCall.DISABLE) is KeyMeaning.SUCCESS
    assert confirms_call("lead disabled", ApiCall.DISABLE)
    assert not confirms_call("lead disabled", ApiCall.CREATE)


@pytest.mark.parametrize("text", ["INVALID_PHONE", "could not create", "false", "Failed: 2", False])
def test_failures(text: str | bool) -> None:
    """A status code counts too; nothing of these is a success."""
    assert means_failure(text)
    assert not means_success(str(text))
    assert means_failure(422)
    assert not means_failure(201)


@pytest.mark.parametrize("text", ["OK", "0 errors, all created", "done without any error"])
def test_successes(text: str) -> None:
    """A phrase such as "0 errors" is no error."""
    assert means_success(text)


def test_a_negation_that_is_not_understood_is_no_success() -> None:
    """Its leads stay in doubt."""
    assert is_negated("this is not what we do, ok")
    assert not means_success("this is not what we do, ok")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, True), ("none", True), ([], True), ({"a": ""}, True), (["0"], False), (["ok"], False)],
)
def test_an_error_key_without_an_error(value: object, expected: bool) -> None:
    """Any text in a list may be the id of a lead."""
    assert means_no_error(value) is expected
