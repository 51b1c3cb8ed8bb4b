"""How responses show a lead, a time and the link to another page."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from starlette.responses import Response

from leadloop.sandbox.campaign_leads import CampaignLeads, StoredLead
from leadloop.sandbox.outcomes import FormatTime, VendorOutcome
from leadloop.sandbox.rules import Rules


def json_response(status: int, content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Serialize the content to a JSON response."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def time_formatter(rules: Rules) -> FormatTime:
    """Return the function that turns epoch ms into the unit or text that the rules set."""
    return _TIME_FORMATS[rules.time_format]


_TIME_FORMATS: dict[str, FormatTime] = {
    "ms": lambda at: at,
    "s": lambda at: at // 1000,
    "us": lambda at: at * 1000,
    "ns": lambda at: at * 1_000_000,
    "iso": lambda at: datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds"),
}


# What a row holds in place of a redacted lead.
_REDACTED: dict[str, dict[str, Any] | None] = {
    "null": None,
    "empty": {},
    "deleted": {"deleted": True},
}
# Calling one of these types turns a lead id of digits into the number that a response shows.
_NUMBER_TYPES: dict[str, Callable[[str], float]] = {"integer": int, "float": float}


def redact_row(rules: Rules) -> dict[str, Any] | None:
    """Return what a page shows in place of a redacted lead."""
    return _REDACTED[rules.redacted_as]


def serialize_lead(
    campaign: CampaignLeads, lead: StoredLead, outcome: VendorOutcome | None, rules: Rules
) -> dict[str, Any]:
    """Serialize a lead to a row of a page: custom fields, fixed keys, and the outcome's keys."""
    format_time = time_formatter(rules)
    row: dict[str, Any] = orjson.loads(lead.custom) if lead.custom else {}
    row.update(
        {
            "lead_id": _serialize_lead_id(lead.lead_id, rules),
            "phone_number": lead.phone_number,
            "contact_number": lead.phone_number,
            "created_at": format_time(lead.created_at),
            "campaign_id": campaign.campaign_id,
            "country_code": "IN" if lead.phone_number.lstrip("+").startswith("91") else "US",
            "campaign_name": campaign.name,
            "contact_name": lead.contact_name,
            "state_code": lead.state_code,
            "call_attempt_keys": [],
            "last_call_attempt_keys": [],
            "total_cost": 0,
        }
    )
    if outcome is not None:
        row.update(_serialize_outcome(campaign, outcome, format_time))
    return row


def _serialize_lead_id(text: str, rules: Rules) -> str | float:
    number_type = _NUMBER_TYPES.get(rules.lead_id_answer)
    # No digit may be lost: no leading zeros, and no more than 64 bits (a float: 53) hold.
    fits = text.isascii() and text.isdigit() and len(text) < 19 and str(int(text)) == text
    if number_type is None or not fits or str(int(number_type(text))) != text:
        return text
    return number_type(text)


def _serialize_outcome(
    campaign: CampaignLeads, outcome: VendorOutcome, format_time: FormatTime
) -> dict[str, Any]:
    row: dict[str, Any] = orjson.loads(outcome.extra) if outcome.extra else {}
    row["processed_at"] = format_time(outcome.processed_at)
    row["outcome_name"] = outcome.outcome_name
    row["outcome_id"] = outcome.outcome_id
    row["total_cost"] = outcome.total_cost
    if outcome.attempts:
        all_key = f"call_attempt_{campaign.name}_1"
        last_key = f"last_call_attempt_{campaign.name}_1"
        row["call_attempt_keys"] = [all_key]
        row["last_call_attempt_keys"] = [last_key]
        row[all_key] = orjson.Fragment(b"[" + b",".join(outcome.attempts) + b"]")
        row[last_key] = orjson.Fragment(outcome.attempts[-1])
    return row


def build_page_link(
    rules: Rules, *, base_url: str, path: str, params: Mapping[str, str], page: int, size: int
) -> str:
    """Build the link to another page: complete, or without filters as in the vendor's sample."""
    if rules.links == "correct":
        query = {**params, "page": str(page), "page_size": str(size)}
        return f"{base_url}{quote(path)}?{urlencode(query)}"
    return f"{rules.link_base}{quote(path)}?{urlencode({'page': page, 'page_size': size})}"
