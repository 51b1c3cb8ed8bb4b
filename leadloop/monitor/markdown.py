"""Escaping of text for Markdown."""

_SPECIAL = frozenset("\\`*_{}[]()#+-.!|~:$<>&")


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown renders it literally; runs of whitespace become one space."""
    return "".join(f"\\{each}" if each in _SPECIAL else each for each in " ".join(text.split()))
