"""What can go wrong on purpose, and when it does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from threading import Lock
from typing import Any, Literal, Self, get_args

Route = Literal["create", "responses", "disable", "token", "any"]
Moment = Literal["before", "after"]
Kind = Literal[
    "status", "reset", "hang", "cut", "foreign", "redirect", "slow", "shift", "late", "repeat"
]

# These spoil the true answer, so the effect has always happened.
_SPOILING = ("cut", "slow")
# These change the books or the page, and let the request go on.
_DRIFTING = ("shift", "late", "repeat")
_CHOICES = {
    "route": get_args(Route),
    "kind": get_args(Kind),
    "when": get_args(Moment),
    "body": ("json", "html", "empty"),
}
_NUMBERS = ("nth", "every", "times", "status", "rows")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One rule of what goes wrong.

    It looks at every request of its `route` (that the rate limit let through) and fires on the
    `nth` (from 1), on `every` so-manieth, with a `probability` (seeded), else on each; at most
    `times` times. With a `lead_id` it looks only at requests that name that lead, in their body or
    query. `when` tells whether the request's effect happens first.

    Kinds:
        status: answer `status` with a `body`, in JSON with this `detail`, and extra `headers`.
        reset: a TCP reset. hang: no answer for `seconds`, then the connection is closed.
        cut: half of the true answer, then the connection is closed. slow: the true answer,
        dripping over `seconds`. foreign: 200 with a page of HTML. redirect: 307 to `url`.
        shift: the page starts `rows` later (rows left before it; below 0: rows came, so some
        are shown twice). late: a waiting lead is processed as if `seconds` ago. repeat: a
        processed lead is processed again now. These three happen on `responses` alone.

    Raises:
        ValueError: a value that is not one of the choices, or does not go with the kind.
    """

    kind: Kind
    route: Route = "any"
    when: Moment | None = None
    nth: int | None = None
    every: int | None = None
    probability: float | None = None
    times: int | None = None
    lead_id: str | None = None
    status: int = 500
    body: Literal["json", "html", "empty"] = "json"
    detail: str = "A fault of the sandbox."
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 1.0
    url: str | None = None
    rows: int = 1

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in (*choices, None):
                raise ValueError(f"a fault's {name} must be one of {', '.join(choices)}")
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None and type(value) is not int:
                raise ValueError(f"a fault's {name} must be a whole number")
        if self.every == 0:
            raise ValueError("a fault's every must be 1 or more")
        if self.kind in _SPOILING and self.when == "before":
            raise ValueError(f"a fault of kind {self.kind} can only come after the effect")
        if self.kind in _DRIFTING and self.when == "after":
            raise ValueError(f"a fault of kind {self.kind} can only come before the effect")
        if self.kind == "redirect" and not self.url:
            raise ValueError("a fault of kind redirect needs a url")

    @property
    def moment(self) -> Moment:
        """When it strikes, by default before the effect (cut and slow: after it)."""
        return self.when or ("after" if self.kind in _SPOILING else "before")

    @property
    def drifts(self) -> bool:
        """Whether the request goes on to its own answer."""
        return self.kind in _DRIFTING

    @property
    def label(self) -> str:
        """How the request log names it, e.g. `status 503 before`."""
        what = f"status {self.status}" if self.kind == "status" else self.kind
        return f"{what} {self.moment}"

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """A fault from a JSON object.

        Raises:
            ValueError: an unknown or missing key, or a wrong value.
        """
        try:
            return cls(**given)
        except TypeError as error:
            raise ValueError(str(error).replace("Fault.__init__() ", "a fault ")) from None


class _Armed:
    """A fault and how often it has looked and fired."""

    def __init__(self, fault: Fault, seed: object) -> None:
        self.fault = fault
        self.seen = 0
        self.fired = 0
        self._luck = Random(str(seed))

    def fires(self) -> bool:
        self.seen += 1
        spent = self.fault.times is not None and self.fired >= self.fault.times
        fires = not spent and self._hits()
        self.fired += fires
        return fires

    def _hits(self) -> bool:
        fault = self.fault
        if fault.nth is not None:
            return self.seen == fault.nth
        if fault.every is not None:
            return self.seen % fault.every == 0
        return fault.probability is None or self._luck.random() < fault.probability


class Faults:
    """The faults in force; safe to use from several threads."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []
        self._lock = Lock()

    def add(self, fault: Fault, seed: int = 0) -> None:
        """Put a fault in force."""
        with self._lock:
            self._armed.append(_Armed(fault, (seed, len(self._armed))))

    def draw(self, route: str, names: Callable[[str], bool] = lambda _: False) -> list[Fault]:
        """The faults that fire on a request of this route: drifts, then at most one answer.

        `names` tells whether the request names a lead.
        """
        with self._lock:
            fired = [a.fault for a in self._armed if _meets(a.fault, route, names) and a.fires()]
        answers = [fault for fault in fired if not fault.drifts]
        return [fault for fault in fired if fault.drifts] + answers[:1]

    def counts(self) -> list[dict[str, Any]]:
        """Each fault in force with how often it looked and fired."""
        with self._lock:
            return [
                {"fault": a.fault.label, "route": a.fault.route, "seen": a.seen, "fired": a.fired}
                for a in self._armed
            ]

    def clear(self) -> None:
        """Put no fault in force."""
        with self._lock:
            self._armed.clear()


def _meets(fault: Fault, route: str, names: Callable[[str], bool]) -> bool:
    return (
        fault.route in ("any", route)
        and (route == "responses" or not fault.drifts)
        and (fault.lead_id is None or names(fault.lead_id))
    )
