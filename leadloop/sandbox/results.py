"""How the vendor's answers show a lead, a time and a link to the next page."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from leadloop.sandbox.outcomes import Outcome
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.shelf import Lead, Shelf


def stamp_for(rules: Rules) -> Callable[[int], Any]:
    """What turns epoch ms into the unit or text that the rules set."""
    return {"ms": _as_ms, "s": _as_seconds, "iso": _as_iso}[rules.time_format]


def _as_ms(at: int) -> int:
    return at


def _as_seconds(at: int) -> int:
    return at // 1000


def _as_iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")


def result(shelf: Shelf, lead: Lead, outcome: Outcome | None, rules: Rules) -> dict[str, Any]:
    """One row of a page: custom fields, fixed keys, and what outreach has brought."""
    stamp = stamp_for(rules)
    row: dict[str, Any] = orjson.loads(lead.custom) if lead.custom else {}
    row.update(_fixed(shelf, lead, rules, stamp))
    if outcome is not None:
        row.update(_processed(shelf, outcome, stamp))
    return row


def _fixed(shelf: Shelf, lead: Lead, rules: Rules, stamp: Callable[[int], Any]) -> dict[str, Any]:
    return {
        "lead_id": _lead_id(lead.lead_id, rules),
        "phone_number": lead.phone_number,
        "contact_number": lead.phone_number,
        "created_at": stamp(lead.created_at),
        "campaign_id": shelf.campaign_id,
        "country_code": "IN" if lead.phone_number.lstrip("+").startswith("91") else "US",
        "campaign_name": shelf.name,
        "contact_name": lead.contact_name,
        "state_code": lead.state_code,
        "call_attempt_keys": [],
        "last_call_attempt_keys": [],
        "total_cost": 0,
    }


def _processed(shelf: Shelf, outcome: Outcome, stamp: Callable[[int], Any]) -> dict[str, Any]:
    row: dict[str, Any] = orjson.loads(outcome.extra) if outcome.extra else {}
    row["processed_at"] = stamp(outcome.processed_at)
    row["outcome_name"] = outcome.outcome_name
    row["outcome_id"] = outcome.outcome_id
    row["total_cost"] = outcome.total_cost
    if outcome.attempts:
        row.update(_calls(shelf, outcome.attempts))
    return row


def _calls(shelf: Shelf, attempts: tuple[bytes, ...]) -> dict[str, Any]:
    every, last = f"call_attempt_{shelf.name}_1", f"last_call_attempt_{shelf.name}_1"
    return {
        "call_attempt_keys": [every],
        "last_call_attempt_keys": [last],
        every: orjson.Fragment(b"[" + b",".join(attempts) + b"]"),
        last: orjson.Fragment(attempts[-1]),
    }


def _lead_id(lead_id: str, rules: Rules) -> str | int:
    looks_so = lead_id.isascii() and lead_id.isdigit() and str(int(lead_id)) == lead_id
    if rules.lead_id_answer == "integer" and looks_so and len(lead_id) < 19:
        return int(lead_id)
    return lead_id


def link(
    rules: Rules, *, base: str, path: str, params: Mapping[str, str], page: int, size: int
) -> str:
    """The link to another page: whole, or as the document's sample has it (filters lost)."""
    if rules.links == "correct":
        query = {**params, "page": str(page), "page_size": str(size)}
        return f"{base}{quote(path)}?{urlencode(query)}"
    return f"{rules.link_base}{quote(path)}?{urlencode({'page': page, 'page_size': size})}"
