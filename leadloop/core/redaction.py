"""The vendor's words without what they repeat of a person: whole teams read them."""

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import unquote

from leadloop.core.postgres_json import escape_unstorable

_LONGEST_REASON = 300
# Patterns are tried on no more of a text, of which there may be megabytes.
_LONGEST_READ = 10_000
# A number, a date or an address that the cut has left unrecognizable is shorter.
_AT_THE_CUT = 200
_BLOT = "…"
_SHAPES = (
    # Seven digits or more, whatever one or two signs are between them, or more of the usual ones.
    re.compile(r"\+?\d(?:[\s().-]{0,9}+\d|[\W_]{0,2}+\d){6,}"),
    re.compile(r"\d{1,2}([/.-])\d{1,2}\1\d{2,4}|\d{4}([/.-])\d{1,2}\2\d{1,2}"),
    # Bounded, or a long text without a blank would take minutes.
    re.compile(r"\S{1,64}@\S++"),
)
_LETTERS = re.compile(r"[^\W_]+")
#: What may stand between the words of a name, or in place of its apostrophe.
_BETWEEN = r"[\W_]*+"


def redact_personal_data(text: str, *values: str | None) -> str:
    """The vendor's words with phone numbers, dates, addresses and the given values blotted out.

    The values are found however they are written: in other letters' case, without accents, with
    other signs between their words, and escaped as in HTML or in a URL, which is undone.

    Kept to 300 characters, for it becomes `last_error` and is counted in a view. A text of more
    than 10,000 is cut before it is read, and what the cut may have left half of is blotted out too.
    """
    given = [value for value in values if value]
    is_cut = len(text) > _LONGEST_READ
    text = text[:_LONGEST_READ]
    # Before too: a % between digits may look like an escape.
    text = _unescaped(_blotted(text, _shapes(text)))
    spans = [*_shapes(text)]
    folded, places = _folded(text)
    for value in given:
        spans += _found(value, folded, places)
    if is_cut:
        # Twice its length, for accents and signs between its words.
        half = _AT_THE_CUT + 2 * max(map(len, given), default=0)
        spans.append((max(0, len(text) - half), len(text)))
    return str(escape_unstorable(_blotted(text, spans)))[:_LONGEST_REASON]


def _shapes(text: str) -> Iterator[tuple[int, int]]:
    """Where in a text something has the form of a number, a date or an address."""
    return (found.span() for shape in _SHAPES for found in shape.finditer(text))


def _found(value: str, folded: str, places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where in a text a value is, by the text as it is compared."""
    if not (wanted := _folded(_unescaped(value))[0].strip()):
        return
    words = _LETTERS.findall(wanted)
    if len("".join(words)) > len(folded):
        return
    pattern = _BETWEEN.join(words) if len("".join(words)) > 1 else re.escape(wanted)
    for found in re.finditer(pattern, folded):
        # To where the next letter begins, and so with the accents; and all of a letter like ß.
        yield places[found.start()], max(places[found.end()], places[found.end() - 1] + 1)


def _unescaped(text: str) -> str:
    try:
        return unquote(html.unescape(text))
    except ValueError:
        # &#999…; with more digits than Python reads as an integer.
        return unquote(text)


def _folded(text: str) -> tuple[str, Sequence[int]]:
    """A text as it is compared, and the place in it that each of its characters comes from."""
    if text.isascii():
        return text.lower(), range(len(text) + 1)
    letters = [_fold(letter) for letter in text]
    places = [place for place, folded in enumerate(letters) for _ in folded]
    return "".join(letters), [*places, len(text)]


def _fold(letter: str) -> str:
    """It without accents, in small letters."""
    plain = unicodedata.normalize("NFKD", letter)
    return "".join(sign for sign in plain if not unicodedata.combining(sign)).casefold()


def _blotted(text: str, spans: Iterable[tuple[int, int]]) -> str:
    left, kept = [], 0
    for start, end in sorted(spans):
        if start >= kept:
            left += [text[kept:start], _BLOT]
        kept = max(kept, end)
    return "".join([*left, text[kept:]])
