"""Text in Markdown."""

_SPECIAL = frozenset("\\`*_{}[]()#+-.!|~:$<>&")


def escape_markdown(text: str) -> str:
    """What Markdown shows as the text itself, whatever is in it."""
    return "".join(f"\\{each}" if each in _SPECIAL else each for each in " ".join(text.split()))
