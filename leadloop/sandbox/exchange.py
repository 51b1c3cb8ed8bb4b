"""A call to the vendor's desk and the answer to it, apart from sockets."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import orjson

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One request as the desk sees it; header names in lower case."""

    headers: Mapping[str, str]
    body: bytes
    params: Mapping[str, str]
    path: str
    base: str
    campaign_id: str = ""
    shift: int = 0

    def names(self, lead_id: str) -> bool:
        """Return whether the query or the body names a lead; a body that is no list names none."""
        if self.params.get("lead_id") == lead_id:
            return True
        try:
            items = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return False
        return isinstance(items, list) and any(
            isinstance(item, dict) and str(item.get("lead_id")) == lead_id for item in items
        )

    def shifted(self, rows: int) -> Self:
        """The same call for a page that starts so many rows later."""
        return replace(self, shift=self.shift + rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What goes back."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """The request is turned away with this answer."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.answer = told(status, {"detail": detail}, headers)


def told(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer in JSON."""
    return Answer(status=status, body=orjson.dumps(content), headers=headers or {})
