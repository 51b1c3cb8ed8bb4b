"""Which words of an answer mean that something was not done.

The document shows no answer to a create or a disable, so this goes by the stems of English words,
in the keys of an answer and in its texts. Of what it takes for trouble by mistake a person gets to
know, since leads stay in doubt; what it misses would be a lead that nobody knows was lost.
"""

import re
from collections.abc import Set
from enum import Enum
from functools import lru_cache
from typing import Any

from leadloop.core.verdicts import ApiCall


class KeyMeaning(Enum):
    """What a key of an answer speaks of."""

    ERROR = "what was not done, and why"
    SUCCESS = "what was done"
    COUNT = "how many"
    STATUS = "how it went"
    MESSAGE = "a word to whoever reads it"
    CONTAINER = "leads, or a part of the answer"
    UNKNOWN = "we cannot tell"


_STEMS = (
    r"abort|bad|blacklist|block|cannot|clos(?:ed|ure)|conflict|declin|den(?:y|ied)|disallow|dropp"
    r"|duplic|err|exceed|excep|exclud|expir|fail|fault|forbid|ignor|illegal|incomplet|invalid"
    r"|maintenance|malform|miss|omit|partial|problem|refus|reject|requir|skip|suppress|throttl|unable"
    r"|unauthor|unavail|unknown|unprocessable|unrecogni|unsub|unsuccess|unsupport|violat|wrong"
)
_BAD = re.compile(rf"\b(?:{_STEMS})", re.IGNORECASE)
#: Negations: of what was to be done they mean trouble, of anything else we cannot tell.
_NOT = re.compile(r"\bnot?\b|n't\b", re.IGNORECASE)
_NOT_DONE = re.compile(
    r"\b(?:not|n't)\s++(?:\w++\s++)?(?:accept|add|allow|authori|creat|disabl|eligib|exist|found|import"
    r"|insert|known|ok|permit|possib|sav|stop|success|support|valid)",
    re.IGNORECASE,
)
#: "0 errors", "errors: 0", "without any error".
_NO_TROUBLE = re.compile(
    rf"\b(?:0|no|none|zero|without(?:\s++any)?)\s++(?:\w++\s++)?(?:{_STEMS})\w*+"
    rf"|\b(?:{_STEMS})\w*+\s*+[:=]\s*+(?:0|no|none|null|false)\b",
    re.IGNORECASE,
)
_FINE = re.compile(
    r"\b(?:ok|okay|done|success\w*+|created|accepted|queued|updated|disabled|true)\b", re.IGNORECASE
)
#: Texts that say as much as an empty one where trouble is spoken of.
_NOTHING = {"", "0", "false", "n/a", "no", "none", "null", "ok", "success", "created", "disabled"}

_BAD_WORD = re.compile(rf"(?:{_STEMS}|not$|reason|unproc)")
_EXPLAINS = {"detail", "details", "reason", "reasons"}
_DONE = {
    ApiCall.CREATE: re.compile(r"accept|add|creat|import|insert|ok$|succe"),
    ApiCall.DISABLE: re.compile(r"accept|disabl|ok$|stop|succe"),
}
_AMOUNTS = {"amount", "count", "n", "num", "number", "total", "size"}
_THINGS = {"contacts", "entries", "id", "ids", "items", "lead", "leads", "objects", "records"} | {
    *("rows", "by", "of", "is", "were", "was", "list", "external"),
}
_STATES = {"code", "http", "result", "state", "status"}
_TEXTS = {"description", "info", "message", "messages", "msg", "note", "text", "title"}
_PARTS = {"batch", "body", "content", "data", "payload", "response", "result", "results"}


@lru_cache(maxsize=1024)
def classify_key(key: str, call: ApiCall) -> KeyMeaning:
    """What a key speaks of, by its words: `failed_leads`, `leadsCreated`, `errorCount`."""
    words = _words(key)
    rest = words - _THINGS
    if any(_BAD_WORD.match(word) for word in words) or words & _EXPLAINS:
        return KeyMeaning.ERROR
    if any(_DONE[call].match(word) for word in rest) and not {"at", "by", "on"} & words:
        return KeyMeaning.SUCCESS
    if rest and rest <= _AMOUNTS:
        return KeyMeaning.COUNT
    if rest and rest <= _STATES:
        return KeyMeaning.STATUS
    if rest and rest <= _TEXTS:
        return KeyMeaning.MESSAGE
    return KeyMeaning.CONTAINER if words and rest <= _PARTS else KeyMeaning.UNKNOWN


def _words(key: str) -> Set[str]:
    apart = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", key[:100])
    return frozenset(filter(None, re.split(r"[\W_]+", apart.lower())))


def means_failure(value: Any) -> bool:
    """Whether a state or a text says that something was not done."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 400 <= value < 600
    text = _plain(value)
    return bool(_BAD.search(text) or _NOT_DONE.search(text)) or text in ("false", "no", "n")


def is_negated(value: Any) -> bool:
    """Whether it says that something is not so, and not clearly what."""
    return bool(_NOT.search(_plain(value)))


def means_success(text: str) -> bool:
    """Whether a text says that all is well."""
    return bool(_FINE.search(text)) and not means_failure(text) and not is_negated(text)


def confirms_call(text: str, call: ApiCall) -> bool:
    """Whether a text says that the very thing was done that was asked for."""
    return means_success(text) and ("creat" if call is ApiCall.CREATE else "disabl") in text.lower()


def means_no_error(value: Any) -> bool:
    """Whether what stands where trouble is told speaks of none."""
    if isinstance(value, str):
        return value.strip().lower() in _NOTHING
    if isinstance(value, dict):
        return all(means_no_error(item) for item in value.values())
    if isinstance(value, list):
        return all(_is_no_item(item) for item in value)
    return not value


def _is_no_item(item: Any) -> bool:
    # Any text or number in a list may be an id: "0" and "ok" as well.
    return means_no_error(item) if isinstance(item, dict | list | bool) else item in (None, "")


def _plain(value: Any) -> str:
    """A text as words (`INVALID_PHONE`), without the errors that it says there are none of."""
    if not isinstance(value, str):
        return ""
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", value[:2000]).replace("_", " ").replace("-", " ")
    return _NO_TROUBLE.sub("", text.lower())
