"""Loopback: where plain http is allowed, and no proxy is used."""

import pytest

from leadloop.core.addresses import is_loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("app.squadrun.co", False),
        ("localhost.squadrun.co", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
    ],
)
def test_a_token_is_sent_in_the_clear_to_this_machine_only(host: str, expected: bool) -> None:
    """A name that merely begins with localhost is another machine."""
    assert is_loopback(host) is expected
