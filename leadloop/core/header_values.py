"""Values that an HTTP header can carry."""

import re

_VISIBLE_ASCII = re.compile("[!-~]+")


def is_header_value(text: str) -> bool:
    """Return whether a token fits into a header: http.client repeats any other in its error."""
    return _VISIBLE_ASCII.fullmatch(text) is not None
