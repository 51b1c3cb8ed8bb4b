"""The names of accounts, and the variables of their settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.accounts import (
    ACCOUNT_SETTINGS,
    DEFAULT_ACCOUNT,
    build_variable,
    find_intended_variable,
    is_account_name,
    parse_variable,
)

_NAMES = st.from_regex(r"[a-z0-9]+(?:-[a-z0-9]+)*", fullmatch=True).filter(
    lambda name: is_account_name(name) and name != DEFAULT_ACCOUNT
)


@given(_NAMES, st.sampled_from(ACCOUNT_SETTINGS))
def test_a_variable_names_one_account_and_one_setting(name: str, setting: str) -> None:
    """Whatever the name contains, also words of settings."""
    assert parse_variable(build_variable(name, setting)) == (name, setting)


@pytest.mark.parametrize(
    "name", ["", "EMEA", "em ea", "em_ea", "-emea", "emea-", "e--a", "émea", "a" * 41, "a\n"]
)
def test_other_names_are_refused(name: str) -> None:
    """They could not be the part of a variable, or of a block's name."""
    assert not is_account_name(name)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("LEADLOOP_ACCOUNT_EMEA_API_TOKN", "LEADLOOP_ACCOUNT_EMEA_API_TOKEN"),
        ("LEADLOOP_ACCOUNT_EMEA_TOKEN", "LEADLOOP_ACCOUNT_EMEA_API_TOKEN"),
        ("LEADLOOP_ACCOUNT_EMEA_APITOKEN", "LEADLOOP_ACCOUNT_EMEA_API_TOKEN"),
        ("LEADLOOP_ACCOUNT_NORTH_SOUTH_RATELIMIT", "LEADLOOP_ACCOUNT_NORTH_SOUTH_RATE_LIMIT"),
        ("LEADLOOP_ACCOUNT_DEFAULT_API_TOKEN", "LEADLOOP_API_TOKEN"),
        ("LEADLOOP_ACCOUNT_EMEA_SERVICE_HOST", None),
        ("LEADLOOP_ACCOUNT_EMEA_COLOUR", None),
        ("LEADLOOP_ACCOUNT_EMEA", None),
        ("LEADLOOP_ACCOUNT__API_URL", None),
    ],
)
def test_a_misspelt_variable_names_the_one_that_is_meant(variable: str, meant: str | None) -> None:
    """As for the settings without an account; other names are not ours."""
    assert parse_variable(variable) is None
    assert find_intended_variable(variable) == meant
