"""Texts that somebody else wrote, in each kind of output."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from leadloop.core.escaping import escape_csv_cell, escape_markdown, escape_unprintable


@pytest.mark.parametrize(
    "text", ["Zoë ok", "\x1b[31m", "\x9bA", "\u202e\n", "\U000e0041", "\udce9"]
)
def test_what_cannot_be_printed_is_escaped(text: str) -> None:
    """A terminal gets no control sequence, and JSON keeps its meaning."""
    escaped = escape_unprintable(text)
    assert escaped.isprintable()
    assert json.loads(f'"{escaped}"') == text
    assert escape_unprintable("Zoë ok") == "Zoë ok"


@given(st.text() | st.text("*_`[]()<>!|#~:$&-+. \nax1\x1b\u202e"))
def test_markdown_renders_the_text_itself(text: str) -> None:
    """No emphasis, link, image, HTML, heading or list: the text and nothing else."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(f"x {escape_markdown(text)}")
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    children = tokens[1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    shown = "".join(child.content for child in children)
    assert shown == f"x {escape_unprintable(' '.join(text.split()))}".strip()


@pytest.mark.parametrize(
    "cell",
    [
        *("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u00a0=1"),
        *("\uff1d1", "\uff0b1", "\uff0d1", "\uff20A", "\ufe62 1"),
    ],
)
def test_formulas_are_escaped(cell: str) -> None:
    """A spreadsheet that opens the CSV executes no cell of it."""
    assert escape_csv_cell(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["C-1", "name: missing", "", " x", -1, 0.5, None])
def test_other_values_are_unchanged(cell: object) -> None:
    """Negative numbers stay numbers."""
    assert escape_csv_cell(cell) == cell
