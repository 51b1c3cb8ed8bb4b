"""The log of every request that arrived."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

RequestKind = Literal["create", "responses", "disable", "token", "revoke", "other"]


@dataclass(slots=True, kw_only=True)
class LoggedRequest:
    """One request. `arrived` is seconds of `time.monotonic`; `status` is 0 until the answer.

    `bearer`: whether the request had an Authorization header; its value is not logged.
    `fault` names the faults that hit the request. A request whose connection was dropped keeps
    status 0.
    """

    arrived: float
    method: str
    path: str
    query: str
    kind: RequestKind
    bearer: bool
    status: int = 0
    fault: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert to a JSON-ready mapping."""
        return asdict(self)


class RequestLog:
    """The requests in the order of arrival."""

    def __init__(self) -> None:
        self.entries: list[LoggedRequest] = []

    def add(self, entry: LoggedRequest) -> None:
        """Log a request as it arrives."""
        self.entries.append(entry)

    def count_busiest(self, seconds: float, kinds: Iterable[RequestKind] | None = None) -> int:
        """Count the requests (of these kinds) in the busiest window of that many seconds."""
        wanted = None if kinds is None else set(kinds)
        entries = list(self.entries)
        return count_busiest_window(
            [e.arrived for e in entries if wanted is None or e.kind in wanted], seconds
        )

    def reset(self) -> None:
        """Delete every entry."""
        self.entries = []


def count_busiest_window(times: list[float], seconds: float) -> int:
    """Count the ascending times in the fullest half-open window of that length."""
    busiest, start = 0, 0
    for end, at in enumerate(times):
        while times[start] <= at - seconds:
            start += 1
        busiest = max(busiest, end - start + 1)
    return busiest
