"""Every setting of the sandbox; each field is one reading of the vendor's document."""

import dataclasses
import json
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

REQUIRED = ("lead_id", "phone_number", "contact_name", "state_code")
_POSITIVE = (
    "max_batch",
    "max_body_bytes",
    "max_page_size",
    "max_page",
    "max_answer_rows",
    "max_answer_bytes",
    "expires_in",
)
_DURATIONS = ("latency", "lead_visible_after", "outcome_visible_after", "late_by", "pace")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How the sandbox behaves. Durations are seconds, sizes bytes or counts.

    Raises:
        ValueError: a value that is not one of a field's choices, or a number out of range.
    """

    # Authentication.
    tokens: tuple[str, ...] = field(default=("sandbox-token",), repr=False)
    client_id: str = field(default="sandbox-client", repr=False)
    client_secret: str = field(default="sandbox-secret", repr=False)
    username: str = field(default="sandbox-user", repr=False)
    password: str = field(default="sandbox-password", repr=False)
    expires_in: int = 36_000
    # With a single token, each login ends the tokens of all earlier ones.
    single_token: bool = False

    # Rate limit and sizes.
    rate_limit: tuple[int, float] | None = None
    retry_after: bool = True
    max_batch: int | None = None
    max_body_bytes: int | None = None
    max_page_size: int | None = None
    page_size_above_max: Literal["cap", "400"] = "cap"
    # Pages beyond this number, and answers larger than this, are refused. 413 and 502 come from a
    # gateway, in HTML.
    max_page: int | None = None
    page_above_max: Literal["400", "422", "500"] = "400"
    max_answer_rows: int | None = None
    max_answer_bytes: int | None = None
    answer_above_max: Literal["502", "413", "500"] = "502"

    # Validation of leads.
    required: tuple[str, ...] = REQUIRED
    phone: Literal["digits", "e164", "nanp"] = "digits"
    newer_limits: bool = False
    # Lead ids must be JSON numbers, as in each sample of the document.
    numeric_ids: bool = False
    campaigns: Mapping[str, str] | None = None

    # Writes, where the vendor's API document leaves a choice.
    bad_lead: Literal["batch", "lead", "batch-anonymous"] = "batch"
    repeat: Literal["error", "update", "second"] = "error"
    unknown_disable: Literal["404", "400", "lead", "ignore"] = "404"
    created_answer: Literal["counts", "list", "object", "empty-leads"] = "counts"

    # Reads, where the vendor's API document leaves a choice.
    order: Literal["created", "processed", "processed-desc", "lead_id", "random"] = "created"
    after_inclusive: bool = True
    before_inclusive: bool = True
    window_unit: Literal["ms", "s"] = "ms"
    time_format: Literal["ms", "s", "us", "ns", "iso"] = "ms"
    lead_id_answer: Literal["text", "integer", "float"] = "text"
    shows_unprocessed: bool = True
    page_beyond_last: Literal["404", "empty"] = "404"
    count: Literal["query", "page"] = "query"
    next: Literal["right", "always", "never"] = "right"
    links: Literal["trap", "correct"] = "trap"
    link_base: str = "http://app.squadrun.co"

    # Flaws of the pages. Leads by id: `doubled` ones are shown twice and counted twice (a join
    # without DISTINCT), `hidden` ones are counted and not shown, `redacted` ones are shown as null,
    # {} or {"deleted": true}. With ties=page, leads that the order ranks alike are in another order
    # on each page, so that one may be shown on two pages and another one on none.
    doubled: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    redacted: tuple[str, ...] = ()
    redacted_as: Literal["null", "empty", "deleted"] = "null"
    ties: Literal["stable", "page"] = "stable"

    # Delays, and when leads and outcomes become visible.
    latency: float = 0.0
    lead_visible_after: float = 0.0
    outcome_visible_after: float = 0.0
    late_share: float = 0.0
    late_by: float = 0.0
    pace: float | None = None
    seed: int = 0
    clock_offset: float = 0.0

    def __post_init__(self) -> None:
        for name, field_type in _FIELD_TYPES.items():
            choices = get_args(field_type)
            value = getattr(self, name)
            if get_origin(field_type) is Literal and value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}")
            if choices == (str, ...) and not all(isinstance(part, str) for part in value):
                raise ValueError(f"{name} must be a list of texts")
        for name in _POSITIVE:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more")
        for name in _DURATIONS:
            if (value := getattr(self, name)) is not None and value < 0:
                raise ValueError(f"{name} must be 0 seconds or more")
        for name, value in vars(self).items():
            parts = value if isinstance(value, tuple) else (value,)
            if any(isinstance(part, float) and not math.isfinite(part) for part in parts):
                raise ValueError(f"{name} must be a finite number")
        if not any(self.tokens):
            raise ValueError("tokens must name at least one token")
        if not 0 <= self.late_share <= 1:
            raise ValueError("late_share must be between 0 and 1")
        if self.rate_limit is not None and min(self.rate_limit) <= 0:
            raise ValueError("rate_limit must be REQUESTS/SECONDS, both above 0")

    def with_changes(self, **changes: Any) -> Self:
        """Return a copy of the rules with some fields replaced.

        Raises:
            ValueError: an unknown field or a wrong value, in one line.
        """
        for name in changes:
            _get_field_type(name)
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> Self:
        """Build the command line's rules: 100 requests a minute, a pace of a minute, and changes.

        Texts are `key=value`, e.g. `max_batch=10`, `rate_limit=100/60`, `pace=none`; a later text
        overrides an earlier one. Lists are comma-separated; `campaigns` is `ID:name,ID:name` or a
        JSON object.

        Raises:
            ValueError: one clear line: no `=`, an unknown key, or a value that does not fit.
        """
        defaults = cls(rate_limit=(100, 60.0), pace=60.0)
        return defaults.with_changes(**dict(_parse_rule(text) for text in texts))

    @classmethod
    def from_json(cls, changes: Mapping[str, Any], base: Self) -> Self:
        """Replace the fields of `base` by those of a JSON object (lists become tuples).

        Raises:
            ValueError: an unknown field or a wrong value.
        """
        parsed = {name: _parse_json_value(name, value) for name, value in changes.items()}
        return base.with_changes(**parsed)

    @classmethod
    def describe_rules(cls) -> list[str]:
        """Describe every rule as `key=value` with the command line's default, and other choices."""
        defaults = cls.from_texts([])
        lines = []
        for name, field_type in _FIELD_TYPES.items():
            value = getattr(defaults, name)
            others = [choice for choice in get_args(field_type) if choice != value]
            is_choice = get_origin(field_type) is Literal
            suffix = f"  (or {', '.join(others)})" if is_choice else ""
            lines.append(f"{name}={_format_value(name, value)}{suffix}")
        return lines

    def public_values(self) -> dict[str, Any]:
        """Return the rules as a JSON-ready mapping, without secrets."""
        names = [f.name for f in dataclasses.fields(self) if f.repr]
        return {name: getattr(self, name) for name in names}


_FIELD_TYPES: dict[str, Any] = get_type_hints(Rules)


def _get_field_type(name: str) -> Any:
    if name not in _FIELD_TYPES:
        raise ValueError(f"unknown rule {name!r}; the rules are: {', '.join(sorted(_FIELD_TYPES))}")
    return _FIELD_TYPES[name]


def _format_value(name: str, value: Any) -> str:
    """Format a value as the command line takes it."""
    if isinstance(value, tuple):
        return ("/" if name == "rate_limit" else ",").join(
            f"{part:g}" if isinstance(part, float) else str(part) for part in value
        )
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parse_rule(text: str) -> tuple[str, Any]:
    """Parse one `key=value` text."""
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals:
        raise ValueError(f"a rule is written key=value, not {text!r}")
    field_type = _get_field_type(name)
    try:
        return name, _parse_value(name, field_type, value.strip())
    except ValueError as error:
        raise ValueError(f"rule {name}: {error}") from None


def _parse_value(name: str, field_type: Any, text: str) -> Any:
    if type(None) in get_args(field_type) and text.lower() in ("none", ""):
        return None
    if name == "rate_limit":
        requests, slash, seconds = text.partition("/")
        if not slash:
            raise ValueError(f"{text!r} is not REQUESTS/SECONDS, such as 100/60")
        return int(_parse_number(int, requests)), _parse_number(float, seconds)
    if name == "campaigns":
        if text.startswith("{"):
            return {str(key): str(title) for key, title in json.loads(text).items()}
        pairs = [part.partition(":") for part in text.split(",") if part.strip()]
        return {key.strip(): title.strip() or key.strip() for key, _, title in pairs}
    plain_type = _strip_optional(field_type)
    if plain_type is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise ValueError(f"{text!r} is neither true nor false")
        return words[text.lower()]
    if get_origin(plain_type) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if plain_type in (int, float):
        return _parse_number(plain_type, text)
    return text


def _strip_optional(field_type: Any) -> Any:
    """Return the type itself of `type | None`."""
    if not isinstance(field_type, types.UnionType):
        return field_type
    return next(part for part in get_args(field_type) if part is not type(None))


def _parse_number(number_type: type[int] | type[float], text: str) -> float:
    try:
        return number_type(text)
    except ValueError:
        wanted = "a whole number" if number_type is int else "a number"
        raise ValueError(f"{text!r} is not {wanted}") from None


def _parse_json_value(name: str, value: Any) -> Any:
    """Check a JSON value's type; a text is parsed as on the command line."""
    field_type = _get_field_type(name)
    if isinstance(value, str):
        return _parse_rule(f"{name}={value}")[1]
    if isinstance(value, list):
        return tuple(value)
    plain_type = _strip_optional(field_type)
    number_fits = plain_type is float and isinstance(value, int | float)
    fits = plain_type in (int, bool) and type(value) is plain_type
    if value is None or isinstance(value, Mapping) or number_fits or fits:
        return value
    raise ValueError(f"rule {name}: {value!r} does not fit")
