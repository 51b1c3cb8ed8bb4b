"""Escaping of ids, names and the vendor's words: one function for each kind of output.

There is none for HTML, because no output of ours is HTML: the page shows Markdown and tables.
"""

import json
import unicodedata

_MARKDOWN_SPECIAL = frozenset("\\`*_{}[]()#+-.!|~:$<>&")
# A spreadsheet executes a cell that begins with one of these as a formula (CSV injection). Some
# pass over blanks before it.
_FORMULA_SIGNS = ("=", "+", "-", "@")
_CONTROLS = ("\t", "\r", "\n")


def escape_unprintable(text: str) -> str:
    """Escape control and invisible characters as in JSON, so that no text drives a terminal."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown renders it literally; runs of whitespace become one space."""
    return "".join(
        f"\\{each}" if each in _MARKDOWN_SPECIAL else each
        for each in escape_unprintable(" ".join(text.split()))
    )


def escape_csv_cell(cell: object) -> object:
    """Prefix a text that a spreadsheet would execute with an apostrophe; return others unchanged.

    Full-width forms of the signs count, because spreadsheets of some languages read them alike.
    """
    if isinstance(cell, str):
        begin = unicodedata.normalize("NFKC", cell.lstrip()[:1])
        if begin.startswith(_FORMULA_SIGNS) or cell.startswith(_CONTROLS):
            return f"'{cell}"
    return cell
