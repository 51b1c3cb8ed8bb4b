"""The vocabulary of the vendor's responses: which words mean success, failure or an error.

The vendor's document shows no response to a create or a disable, so keys and texts are classified
by the stems of English words. False positives are visible, because leads stay in doubt; a false
negative loses a lead silently.
"""

import re
from enum import Enum
from functools import lru_cache
from typing import Any

from leadloop.core.verdicts import ApiCall


class KeyMeaning(Enum):
    """The meaning of a key in a response."""

    ERROR = "an error, or its reason"
    SUCCESS = "what was carried out"
    COUNT = "a number of leads"
    STATUS = "a status"
    MESSAGE = "a text for a person"
    CONTAINER = "leads, or a part of the response"
    UNKNOWN = "unknown"


_STEMS = (
    r"abort|bad|blacklist|block|cannot|clos(?:ed|ure)|conflict|declin|den(?:y|ied)|disallow|dropp"
    r"|duplic|err|exceed|excep|exclud|expir|fail|fault|forbid|ignor|illegal|incomplet|invalid"
    r"|maintenance|malform|miss|omit|partial|problem|refus|reject|requir|skip|suppress|throttl|unable"
    r"|unauthor|unavail|unknown|unprocessable|unrecogni|unsub|unsuccess|unsupport|violat|wrong"
)
_FAILURE = re.compile(rf"\b(?:{_STEMS})", re.IGNORECASE)
#: Negations: an error if they negate what was requested, ambiguous otherwise.
_NEGATION = re.compile(r"\bnot?\b|n't\b", re.IGNORECASE)
_NOT_DONE = re.compile(
    r"\b(?:not|n't)\s++(?:\w++\s++)?(?:accept|add|allow|authori|creat|disabl|eligib|exist|found|import"
    r"|insert|known|ok|permit|possib|sav|stop|success|support|valid)",
    re.IGNORECASE,
)
#: "0 errors", "errors: 0", "without any error".
_NO_ERROR = re.compile(
    rf"\b(?:0|no|none|zero|without(?:\s++any)?)\s++(?:\w++\s++)?(?:{_STEMS})\w*+"
    rf"|\b(?:{_STEMS})\w*+\s*+[:=]\s*+(?:0|no|none|null|false)\b",
    re.IGNORECASE,
)
_SUCCESS_TEXT = re.compile(
    r"\b(?:ok|okay|done|success\w*+|created|added|imported|inserted|uploaded|accepted|queued|updated"
    r"|disabled|true)\b",
    re.IGNORECASE,
)
#: "7 leads created", "7 of 8 leads were created", "created: 7".
_CREATED_COUNT = re.compile(
    r"\b0*[1-9]\d*\s++"
    r"(?:(?:of|\d++|leads?|contacts?|records?|rows?|was|were|have|has|been|successfully)\s++){0,5}"
    r"(?:created|added|accepted|imported|inserted)\b"
    r"|\b(?:created|added|accepted|imported|inserted)\W{1,3}0*[1-9]",
    re.IGNORECASE,
)
#: Whole numbers that stand alone, not within an id, a date, a time or a fraction.
_COUNT = re.compile(r"(?<![\w.-])(?<!\d:)\d{1,9}(?![\w-]|[.:]\d)")
#: Texts that mean "no error" under an error key.
_EMPTY_TEXTS = {
    "",
    "0",
    "false",
    "n/a",
    "no",
    "none",
    "null",
    "ok",
    "success",
    "created",
    "disabled",
}

_ERROR_WORD = re.compile(rf"(?:{_STEMS}|not$|reason|unproc)")
_REASON_WORDS = {"detail", "details", "reason", "reasons"}
_SUCCESS_WORD = {
    ApiCall.CREATE: re.compile(r"accept|add(?:ed)?$|creat|import|insert|ok$|succe"),
    ApiCall.DISABLE: re.compile(r"accept|disabl|ok$|stop|succe"),
}
_COUNT_WORDS = {"amount", "count", "n", "num", "number", "total", "size"}
_NOUNS = {"contacts", "entries", "id", "ids", "items", "lead", "leads", "objects", "records"} | {
    *("rows", "by", "of", "is", "were", "was", "list", "external"),
}
_STATUS_WORDS = {"code", "http", "result", "state", "status"}
_MESSAGE_WORDS = {"description", "info", "message", "messages", "msg", "note", "text", "title"}
_CONTAINER_WORDS = {"batch", "body", "content", "data", "payload", "response", "result", "results"}


@lru_cache(maxsize=1024)
def classify_key(key: str, call: ApiCall) -> KeyMeaning:
    """Classify a key by its words: `failed_leads`, `leadsCreated`, `errorCount`."""
    separated = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", key[:100])
    words = frozenset(filter(None, re.split(r"[\W_]+", separated.lower())))
    rest = words - _NOUNS
    if any(_ERROR_WORD.match(word) for word in words) or words & _REASON_WORDS:
        return KeyMeaning.ERROR
    if any(_SUCCESS_WORD[call].match(word) for word in rest) and not {"at", "by", "on"} & words:
        return KeyMeaning.SUCCESS
    if rest and rest <= _COUNT_WORDS:
        return KeyMeaning.COUNT
    if rest and rest <= _STATUS_WORDS:
        return KeyMeaning.STATUS
    if rest and rest <= _MESSAGE_WORDS:
        return KeyMeaning.MESSAGE
    return KeyMeaning.CONTAINER if words and rest <= _CONTAINER_WORDS else KeyMeaning.UNKNOWN


def means_failure(value: Any) -> bool:
    """Return whether a status or a text means that something failed."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 400 <= value < 600
    text = _normalize(value)
    return bool(_FAILURE.search(text) or _NOT_DONE.search(text)) or text in ("false", "no", "n")


def is_negated(value: Any) -> bool:
    """Return whether a text contains a negation."""
    return bool(_NEGATION.search(_normalize(value)))


def means_success(text: str) -> bool:
    """Return whether a text means success."""
    return bool(_SUCCESS_TEXT.search(text)) and not means_failure(text) and not is_negated(text)


def confirms_call(text: str, call: ApiCall) -> bool:
    """Return whether a text confirms the requested operation itself: created, or disabled."""
    return means_success(text) and ("creat" if call is ApiCall.CREATE else "disabl") in text.lower()


def find_counts(text: str) -> list[int]:
    """Return the numbers in a text that may count leads, without phrases such as "0 errors"."""
    return [int(number) for number in _COUNT.findall(_NO_ERROR.sub("", text[:2000]))]


def counts_created(text: str) -> bool:
    """Return whether a text counts leads that this request has created.

    Not if one is said to be created already, or not to be created.
    """
    return bool(_CREATED_COUNT.search(text[:2000])) and not (
        is_negated(text) or "already" in text.lower()
    )


def means_no_error(value: Any) -> bool:
    """Return whether the value of an error key means that there is no error."""
    if isinstance(value, str):
        return value.strip().lower() in _EMPTY_TEXTS
    if isinstance(value, dict):
        return all(means_no_error(item) for item in value.values())
    if isinstance(value, list):
        # Any text or number in a list may be an id, even "0" and "ok".
        return all(
            means_no_error(item) if isinstance(item, dict | list | bool) else item in (None, "")
            for item in value
        )
    return not value


def _normalize(value: Any) -> str:
    """Return a text as lower-case words (`INVALID_PHONE`), without phrases such as "0 errors"."""
    if not isinstance(value, str):
        return ""
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", value[:2000]).replace("_", " ").replace("-", " ")
    return _NO_ERROR.sub("", text.lower())
