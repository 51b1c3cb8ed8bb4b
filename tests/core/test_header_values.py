"""Tokens: only what an HTTP header can carry is accepted."""

import pytest

from leadloop.core.header_values import is_header_value


@pytest.mark.parametrize("token", ["", "a b", "a\n", "a\r\nX-Evil: 1", "\x7f", "tökén", "a\u2028"])
def test_a_token_that_no_header_can_carry_is_refused(token: str) -> None:
    """Else http.client would repeat the token in its error."""
    assert not is_header_value(token)
    assert is_header_value("eyJhbGciOi.J9-_~+/=")
