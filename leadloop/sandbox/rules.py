"""Everything that can be set about the stand-in, each field one reading of the document."""

import dataclasses
import json
import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

REQUIRED = ("lead_id", "phone_number", "contact_name", "state_code")
_DURATIONS = ("latency", "lead_visible_after", "outcome_visible_after", "late_by", "pace")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How the stand-in behaves. Durations are seconds, sizes bytes or counts.

    Raises:
        ValueError: a value that is not one of a field's choices, or a number out of range.
    """

    # Who may come in.
    tokens: tuple[str, ...] = field(default=("sandbox-token",), repr=False)
    client_id: str = field(default="sandbox-client", repr=False)
    client_secret: str = field(default="sandbox-secret", repr=False)
    username: str = field(default="sandbox-user", repr=False)
    password: str = field(default="sandbox-password", repr=False)
    expires_in: int = 36_000

    # How much may come in.
    rate_limit: tuple[int, float] | None = None
    retry_after: bool = True
    max_batch: int | None = None
    max_body_bytes: int | None = None
    max_page_size: int | None = None
    page_size_above_max: Literal["cap", "400"] = "cap"

    # What a lead must be.
    required: tuple[str, ...] = REQUIRED
    phone: Literal["digits", "e164", "nanp"] = "digits"
    newer_limits: bool = False
    campaigns: Mapping[str, str] | None = None

    # What the document leaves open about writing.
    bad_lead: Literal["batch", "lead", "batch-anonymous"] = "batch"
    repeat: Literal["error", "update", "second"] = "error"
    unknown_disable: Literal["404", "400", "lead", "ignore"] = "404"

    # What the document leaves open about reading.
    order: Literal["created", "processed", "processed-desc", "lead_id", "random"] = "created"
    after_inclusive: bool = True
    before_inclusive: bool = True
    window_unit: Literal["ms", "s"] = "ms"
    time_format: Literal["ms", "s", "iso"] = "ms"
    lead_id_answer: Literal["text", "integer"] = "text"
    shows_unprocessed: bool = True
    page_beyond_last: Literal["404", "empty"] = "404"
    count: Literal["query", "page"] = "query"
    next: Literal["right", "always", "never"] = "right"
    links: Literal["trap", "correct"] = "trap"
    link_base: str = "http://app.squadrun.co"

    # When it answers, and when things can be seen.
    latency: float = 0.0
    lead_visible_after: float = 0.0
    outcome_visible_after: float = 0.0
    late_share: float = 0.0
    late_by: float = 0.0
    pace: float | None = None
    seed: int = 0
    clock_offset: float = 0.0

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            _check_choice(name, kind, getattr(self, name))
        for name in ("max_batch", "max_body_bytes", "max_page_size", "expires_in"):
            _check_positive(name, getattr(self, name))
        for name in _DURATIONS:
            _check_duration(name, getattr(self, name))
        for name, value in vars(self).items():
            _check_finite(name, value)
        if not any(self.tokens):
            raise ValueError("tokens must name at least one token")
        if not 0 <= self.late_share <= 1:
            raise ValueError("late_share must be between 0 and 1")
        if self.rate_limit is not None and min(self.rate_limit) <= 0:
            raise ValueError("rate_limit must be REQUESTS/SECONDS, both above 0")

    def changed(self, **changes: Any) -> Self:
        """The same rules with some fields replaced.

        Raises:
            ValueError: an unknown field or a wrong value, said in one line.
        """
        for name in changes:
            _known(name)
        return dataclasses.replace(self, **changes)

    def changed_by_texts(self, texts: Iterable[str]) -> Self:
        """The same rules with `key=value` texts applied, the later one winning.

        Raises:
            ValueError: as `from_texts`.
        """
        return self.changed(**dict(_parsed(text) for text in texts))

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> Self:
        """The command line's rules (100 requests a minute, a pace of a minute) with changes.

        Texts are `key=value`, e.g. `max_batch=10`, `rate_limit=100/60`, `pace=none`. Lists are
        comma-separated; `campaigns` is `ID:name,ID:name` or a JSON object.

        Raises:
            ValueError: one clear line: no `=`, an unknown key, or a value that does not fit.
        """
        return cls(rate_limit=(100, 60.0), pace=60.0).changed_by_texts(texts)

    @classmethod
    def described(cls) -> list[str]:
        """Every rule as `key=value` with the command line's default, and other choices."""
        shown = cls.from_texts([])
        return [_described(name, kind, getattr(shown, name)) for name, kind in _KINDS.items()]

    @classmethod
    def from_json(cls, changes: Mapping[str, Any], base: Self) -> Self:
        """`base` with the fields of a JSON object replaced (lists become tuples).

        Raises:
            ValueError: an unknown field or a wrong value.
        """
        return base.changed(**{name: _from_json(name, value) for name, value in changes.items()})

    def public(self) -> dict[str, Any]:
        """The rules as a JSON-ready mapping, without anything secret."""
        shown = [f.name for f in dataclasses.fields(self) if f.repr]
        return {name: getattr(self, name) for name in shown}


_KINDS: dict[str, Any] = get_type_hints(Rules)


def _known(name: str) -> Any:
    if name not in _KINDS:
        raise ValueError(f"unknown rule {name!r}; the rules are: {', '.join(sorted(_KINDS))}")
    return _KINDS[name]


def _described(name: str, kind: Any, value: Any) -> str:
    others = [choice for choice in get_args(kind) if choice != value]
    or_these = f"  (or {', '.join(others)})" if get_origin(kind) is Literal else ""
    return f"{name}={_written(name, value)}{or_these}"


def _written(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        return ("/" if name == "rate_limit" else ",").join(
            f"{part:g}" if isinstance(part, float) else str(part) for part in value
        )
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_choice(name: str, kind: Any, value: Any) -> None:
    if get_origin(kind) is Literal and value not in get_args(kind):
        choices = ", ".join(get_args(kind))
        raise ValueError(f"{name} must be one of {choices}")


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"{name} must be 1 or more")


def _check_duration(name: str, value: float | None) -> None:
    if value is not None and value < 0:
        raise ValueError(f"{name} must be 0 seconds or more")


def _check_finite(name: str, value: Any) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
        raise ValueError(f"{name} must be a finite number")


def _parsed(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals:
        raise ValueError(f"a rule is written key=value, not {text!r}")
    kind = _known(name)
    try:
        return name, _value(name, kind, value.strip())
    except ValueError as error:
        raise ValueError(f"rule {name}: {error}") from None


def _value(name: str, kind: Any, text: str) -> Any:
    if name in _SPECIAL:
        return None if _is_none(kind, text) else _SPECIAL[name](text)
    if _is_none(kind, text):
        return None
    return _scalar(_without_none(kind), text)


def _is_none(kind: Any, text: str) -> bool:
    return type(None) in get_args(kind) and text.lower() in ("none", "")


def _without_none(kind: Any) -> Any:
    if not isinstance(kind, types.UnionType):
        return kind
    return next(part for part in get_args(kind) if part is not type(None))


def _scalar(kind: Any, text: str) -> Any:
    if kind is bool:
        return _boolean(text)
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind in (int, float):
        return _number(kind, text)
    return text


def _number(kind: type[int] | type[float], text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ValueError(f"{text!r} is not {wanted}") from None


def _boolean(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise ValueError(f"{text!r} is neither true nor false")
    return words[text.lower()]


def _rate(text: str) -> tuple[int, float]:
    requests, slash, seconds = text.partition("/")
    if not slash:
        raise ValueError(f"{text!r} is not REQUESTS/SECONDS, such as 100/60")
    return int(_number(int, requests)), _number(float, seconds)


def _campaigns(text: str) -> dict[str, str]:
    if text.startswith("{"):
        return {str(key): str(name) for key, name in json.loads(text).items()}
    pairs = [part.partition(":") for part in text.split(",") if part.strip()]
    return {key.strip(): name.strip() or key.strip() for key, _, name in pairs}


_SPECIAL: dict[str, Callable[[str], Any]] = {"rate_limit": _rate, "campaigns": _campaigns}


def _from_json(name: str, value: Any) -> Any:
    kind = _known(name)
    if isinstance(value, str):
        return _parsed(f"{name}={value}")[1]
    if isinstance(value, list):
        return tuple(value)
    expected = _without_none(kind)
    number_fits = expected is float and isinstance(value, int | float)
    plain = expected in (int, bool) and type(value) is expected
    if value is None or isinstance(value, Mapping) or number_fits or plain:
        return value
    raise ValueError(f"rule {name}: {value!r} does not fit")
