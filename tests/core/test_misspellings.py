"""Which setting a variable's name means: typos and synonyms are found, other names are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.misspellings import edit_distance, find_intended_setting
from leadloop.settings import Settings

_SETTINGS = [field.upper() for field in Settings.model_fields]


@st.composite
def _typos(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a setting, and its name with one typo: a letter left out, doubled or swapped."""
    setting = draw(st.sampled_from(_SETTINGS))
    at = draw(st.integers(0, len(setting) - 1))
    left, letter, right = setting[:at], setting[at], setting[at + 1 :]
    typo = draw(
        st.sampled_from(
            [left + right, left + 2 * letter + right, left + right[:1] + letter + right[1:]]
        )
    )
    return setting, typo


@given(_typos())
def test_each_typo_is_found(drawn: tuple[str, str]) -> None:
    """And the setting that is meant is named, not one that is like it."""
    setting, typo = drawn
    assert typo in _SETTINGS or find_intended_setting(typo, _SETTINGS) == setting


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DATABSE_ULR", "DATABASE_URL"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("DB_URL", "DATABASE_URL"),
        ("DATABASE_DSN", "DATABASE_URL"),
        ("DSN", "DATABASE_URL"),
        ("POSTGRES_URL", "DATABASE_URL"),
        ("SOURCE_DATABASE_URL", "SOURCE_URL"),
        ("TOKEN", "API_TOKEN"),
        ("API_KEY", "API_TOKEN"),
        ("BASE_URL", "API_URL"),
        ("URL", "API_URL"),
        ("PASWORDD", "PASSWORD"),
        ("BATCHSIZE", "BATCH_SIZE"),
        ("API_TOKENS", "API_TOKEN"),
    ],
)
def test_what_is_meant(name: str, meant: str) -> None:
    """Two typos in a long name, missing underscores, and what other programs call it."""
    assert find_intended_setting(name, _SETTINGS) == meant


@pytest.mark.parametrize(
    "name",
    [
        "DB_PASSWORD",
        "DBPASSWORD",
        "DATABASE_PASSWORD",
        "POSTGRES_PASSWORD",
        "SOURCE_PASSWORD",
        "READER_PASSWORD",
        "TEST_DATABASE_URL",
        "STAGING_API_TOKEN",
        "OLD_API_TOKEN",
        "MY_API_TOKEN",
        "API_TOKEN_2",
        "TIMEZONE",
        "PAGE_PORT",
        "DATABASE_SERVICE_HOST",
        "HOST",
        "HOME",
        "ENV",
        "IMAGE",
        "VERSION",
        "LOG_LEVEL",
        "",
        "_",
    ],
)
def test_names_of_other_things(name: str) -> None:
    """They belong to other programs, and stop nothing."""
    assert find_intended_setting(name, _SETTINGS) is None


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "abc", 0),
        ("abc", "ac", 1),
        ("abc", "abxc", 1),
        ("abc", "axc", 1),
        ("abc", "acb", 1),
        ("abcd", "badc", 2),
        ("abc", "cab", 2),
        ("kitten", "sitting", 3),
    ],
)
def test_edit_distance(one: str, other: str, distance: int) -> None:
    """A swap of neighbours is one edit; the distance is the same in both directions."""
    assert edit_distance(one, other) == edit_distance(other, one) == distance
