"""Redaction of personal data in the vendor's texts, which whole teams read."""

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import unquote

from leadloop.core.postgres_json import escape_unstorable

#: Characters of a redacted text.
MAX_REASON_LENGTH = 300
#: A text may have megabytes; the patterns read no more characters than this.
MAX_REASON_READ = 10_000
# Longer than any number, date or address that the truncation may have made unrecognizable.
_TAIL_LENGTH = 200
_REDACTED = "…"
_SHAPES = (
    # Seven digits or more, with up to nine characters between two of them, whichever they are.
    re.compile(r"\+?\d(?:[\W_]{0,9}+\d){6,}"),
    re.compile(r"\d{1,2}([/.-])\d{1,2}\1\d{2,4}|\d{4}([/.-])\d{1,2}\2\d{1,2}"),
    # Bounded: a long text without a blank would take minutes.
    re.compile(r"\S{1,64}@\S++"),
)
_LETTERS = re.compile(r"[^\W_]+")
#: The words of which reasons of a rejected opt-out usually consist.
_PLAIN_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        "a access action active added all allowed already an and another any api are as at"
        " attempt bad be because been before belong belongs blocked body but by call called"
        " campaign campaigns can cannot closed code completed conflict contact contacts could"
        " customer data date deleted denied did disable disabled disabling does done duplicate"
        " enabled error exceeded exist existing exists expired failed failure field finished"
        " for forbidden format found from given has have id ids in inactive incorrect internal"
        " invalid is it key later lead leads limit list locked longer malformed matching may"
        " message missing more most must no not null number object of on one only open opt or"
        " other out page parameter path permission person phone please process processed"
        " processing provided query quota rate reason record records rejected request"
        " requested required resource response retry row running server service should state"
        " status stopped supported system temporarily than that the this time timeout to too"
        " try twice type unable unauthorized unavailable unexpected unique unknown"
        " unprocessable unsupported url user valid validation value was were with within wrong"
        " you",
    )
)
_MAX_PLAIN_DIGITS = 3
#: Characters that may separate the words of a name, or replace its apostrophe.
_BETWEEN = r"[\W_]*+"


def redact_personal_data(text: str, *values: str | None) -> str:
    """Redact phone numbers, dates, e-mail addresses and the given values in a text.

    Values are found in any case, without accents, with other characters between their words, and
    escaped as in HTML or a URL (the result is unescaped).

    The result has at most 300 characters, because it becomes `last_error` and is counted in a view.
    A text of more than 10,000 characters is truncated first, and its last part is redacted, because
    the truncation may have cut a value in half.
    """
    given = [value for value in values if value]
    is_truncated = len(text) > MAX_REASON_READ
    text = text[:MAX_REASON_READ]
    # Redacted before unescaping too: a % between digits may look like an escape.
    text = _unescape(_replace_spans(text, _find_shapes(text)))
    spans = [*_find_shapes(text)]
    folded, positions = _fold(text)
    for value in given:
        spans += _find_value(value, folded, positions)
    if is_truncated:
        # Twice the longest value, for accents and characters between its words.
        tail = _TAIL_LENGTH + 2 * max(map(len, given), default=0)
        spans.append((max(0, len(text) - tail), len(text)))
    return str(escape_unstorable(_replace_spans(text, spans)))[:MAX_REASON_LENGTH]


def keep_plain_words(text: str) -> str:
    """Return a redacted text with plain words and short numbers alone, and `…` for each other word.

    For the vendor's text about a person whose name is not known here, and cannot be found in it.
    """
    return _LETTERS.sub(lambda word: word[0] if _is_plain(word[0]) else _REDACTED, text)


def _is_plain(word: str) -> bool:
    is_short_number = word.isdecimal() and len(word) <= _MAX_PLAIN_DIGITS
    return is_short_number or word.lower() in _PLAIN_WORDS


def replace_lead_id(text: str, lead_id: str, mark: str) -> str:
    """Replace a lead's id in a text, where it is a separate word."""
    return re.sub(rf"(?<!\w){re.escape(lead_id)}(?!\w)", mark, text)


def _find_shapes(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of a text that look like a number, a date or an e-mail address."""
    return (found.span() for shape in _SHAPES for found in shape.finditer(text))


def _find_value(value: str, folded: str, positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the spans of a value in the original text, searched in the folded text."""
    if not (wanted := _fold(_unescape(value))[0].strip()):
        return
    words = _LETTERS.findall(wanted)
    # A lead may have thousands of values, and to compile a pattern takes long.
    if len("".join(words)) > len(folded) or not all(word in folded for word in words):
        return
    pattern = _BETWEEN.join(words) if len("".join(words)) > 1 else re.escape(wanted)
    for found in re.finditer(pattern, folded):
        # Up to the next letter, which includes accents; and the whole of a letter such as ß.
        yield positions[found.start()], max(positions[found.end()], positions[found.end() - 1] + 1)


def _unescape(text: str) -> str:
    try:
        return unquote(html.unescape(text))
    except ValueError:
        # &#999…; with more digits than Python parses as an integer.
        return unquote(text)


def _fold(text: str) -> tuple[str, Sequence[int]]:
    """Return a text without accents and case, and the original position of each character."""
    if text.isascii():
        return text.lower(), range(len(text) + 1)
    letters = [
        "".join(
            character
            for character in unicodedata.normalize("NFKD", letter)
            if not unicodedata.combining(character)
        ).casefold()
        for letter in text
    ]
    positions = [position for position, folded in enumerate(letters) for _ in folded]
    return "".join(letters), [*positions, len(text)]


def _replace_spans(text: str, spans: Iterable[tuple[int, int]]) -> str:
    parts, position = [], 0
    for start, end in sorted(spans):
        if start >= position:
            parts += [text[position:start], _REDACTED]
        position = max(position, end)
    return "".join([*parts, text[position:]])
