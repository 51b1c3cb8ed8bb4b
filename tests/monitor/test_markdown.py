from leadloop.monitor.markdown import escape_markdown


def test_special_characters_are_escaped() -> None:
    """A vendor's message cannot format the page, link from it or add HTML."""
    assert escape_markdown("*a* <b>\n[x](y)") == r"\*a\* \<b\> \[x\]\(y\)"
