"""The vendor's documented endpoints: create, list and disable leads, grant and revoke tokens.

No sockets, rate limit or faults: `asgi_app` puts those around each endpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self
from urllib.parse import parse_qsl

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from leadloop.sandbox.campaign_leads import CampaignLeads, LeadDraft, LeadQuery, StoredLead
from leadloop.sandbox.faults import Fault, respond_with_fault
from leadloop.sandbox.request_log import RequestKind
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.serialization import (
    build_page_link,
    json_response,
    redact_row,
    serialize_lead,
)
from leadloop.sandbox.state import SandboxState
from leadloop.sandbox.validation import (
    EXISTS,
    NOT_NUMERIC,
    EntryError,
    parse_entries,
    parse_entry_id,
    validate_lead,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedRequest:
    """One request, read to its end; header names in lower case."""

    headers: Mapping[str, str]
    body: bytes
    params: Mapping[str, str]
    path: str
    base_url: str
    campaign_id: str = ""
    row_shift: int = 0

    @classmethod
    async def read_from(cls, request: Request) -> Self:
        """Read a request.

        Raises:
            ClientDisconnect: the connection ended within the body.
        """
        return cls(
            headers=request.headers,
            body=await request.body(),
            params=request.query_params,
            path=request.scope["path"],
            base_url=get_base_url(request),
            campaign_id=request.path_params.get("campaign_id", ""),
        )

    def names_lead(self, lead_id: str) -> bool:
        """Return whether the query or the list in the body names a lead."""
        if self.params.get("lead_id") == lead_id:
            return True
        try:
            items = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return False
        return isinstance(items, list) and any(
            isinstance(item, dict) and str(item.get("lead_id")) == lead_id for item in items
        )

    def shift_rows(self, rows: int) -> Self:
        """Return the request for a page that starts `rows` later."""
        return replace(self, row_shift=self.row_shift + rows)


def get_base_url(request: Request) -> str:
    """Return the URL at which the client reached the sandbox."""
    return f"http://{request.headers.get('host', '')}"


Handler = Callable[[SandboxState, ReceivedRequest], Response]
"""Answers a request. May raise `HTTPException`, whose detail becomes the JSON body."""


@dataclass(frozen=True, slots=True)
class VendorRoute:
    """One documented endpoint."""

    kind: RequestKind
    method: str
    path: str
    handler: Handler


def list_vendor_routes() -> list[VendorRoute]:
    """List the endpoints of the vendor's document."""
    return [
        VendorRoute("create", "POST", "/api/v1/leads/create/{campaign_id}/", create_leads),
        VendorRoute("responses", "GET", "/api/v1/leads/responses/{campaign_id}/", list_leads),
        VendorRoute("disable", "POST", "/api/v1/leads/disable/{campaign_id}/", disable_leads),
        VendorRoute("token", "POST", "/oauth/token/", grant_token),
        VendorRoute("revoke", "POST", "/oauth/revoke_token/", revoke_token),
    ]


# Creating leads.

# Answers to a batch without errors that say nothing of it.
_BLANK_ANSWERS: Mapping[str, Any] = {"list": [], "object": {}, "empty-leads": {"leads": []}}


def create_leads(sandbox: SandboxState, request: ReceivedRequest) -> Response:
    """Create a batch of leads, or reject the batch or single leads, by rule."""
    rules, campaign = sandbox.rules, _require_campaign(sandbox, request)
    batch = _parse_batch(request, rules)
    drafts: list[LeadDraft] = []
    errors, seen = [], set[str]()
    for index, entry in enumerate(batch):
        checked = validate_lead(index, entry, rules)
        if isinstance(checked, EntryError):
            errors.append(checked)
            continue
        exists = checked.lead_id in campaign.first_by_id
        if rules.repeat == "error" and (exists or checked.lead_id in seen):
            if exists:
                sandbox.store.count_rejected_repeat(campaign, checked.lead_id)
            errors.append(EntryError(index=index, lead_id=checked.lead_id, reason=EXISTS))
            continue
        drafts.append(checked)
        seen.add(checked.lead_id)
    shown = [error.to_dict() for error in errors]
    if not errors or rules.bad_lead == "lead":
        sandbox.store.create_leads(campaign, drafts)
        blank = None if errors else _BLANK_ANSWERS.get(rules.created_answer)
        counts = {"created": len(drafts), "errors": shown}
        return json_response(201, counts if blank is None else blank)
    if rules.bad_lead == "batch-anonymous":
        detail = "The batch holds invalid data. Nothing was created."
        return json_response(400, {"detail": detail})
    detail = f"{len(errors)} of {len(batch)} leads are invalid. Nothing was created."
    return json_response(400, {"detail": detail, "errors": shown})


# Listing leads.


def list_leads(sandbox: SandboxState, request: ReceivedRequest) -> Response:
    """Return one page of the leads that the query matches."""
    rules, campaign = sandbox.rules, _require_campaign(sandbox, request)
    page, size = _parse_paging(request, rules)
    if rules.max_page is not None and page > rules.max_page:
        raise HTTPException(int(rules.page_above_max), "The page is too far from the first one.")
    start = (page - 1) * size
    count, leads = _select_page(sandbox, request, campaign)
    if start >= count and page > 1 and rules.page_beyond_last == "404":
        raise HTTPException(404, "Invalid page.")

    def link_to(other_page: int) -> str:
        return build_page_link(
            rules,
            base_url=request.base_url,
            path=request.path,
            params=request.params,
            page=other_page,
            size=size,
        )

    rows = []
    for lead in leads:
        if lead.lead_id in rules.redacted:
            rows.append(redact_row(rules))
            continue
        is_processed = lead.processed_at is not None
        outcome = sandbox.store.get_outcome(campaign, lead) if is_processed else None
        rows.append(serialize_lead(campaign, lead, outcome, rules))
    # With the rule next=always the link names a page even after the last one.
    has_next = rules.next == "always" or (rules.next == "right" and start + size < count)
    content = {
        "count": count if rules.count == "query" else len(leads),
        "next": link_to(page + 1) if has_next else None,
        "previous": link_to(page - 1) if page > 1 else None,
        "results": rows,
    }
    return _limit_size(json_response(200, content), len(rows), rules)


def shows_lead(sandbox: SandboxState, request: ReceivedRequest, lead_id: str) -> bool:
    """Return whether the page that a read asks for has a row of the lead."""
    campaign = sandbox.store.find_campaign(request.campaign_id)
    if campaign is None:
        return False
    try:
        _, leads = _select_page(sandbox, request, campaign)
    except HTTPException:
        return False
    return any(lead.lead_id == lead_id for lead in leads)


def _select_page(
    sandbox: SandboxState, request: ReceivedRequest, campaign: CampaignLeads
) -> tuple[int, Sequence[StoredLead]]:
    """Count the rows that the query selects, and return those of its page."""
    page, size = _parse_paging(request, sandbox.rules)
    first_row = max(0, (page - 1) * size + request.row_shift)
    query = _parse_query(request, sandbox.rules)
    return sandbox.store.read_page(campaign, query, first_row, size)


def _limit_size(response: Response, rows: int, rules: Rules) -> Response:
    """Return the response, or a refusal if it is larger than the rules allow."""
    max_rows, max_bytes = rules.max_answer_rows, rules.max_answer_bytes
    if (max_rows is None or rows <= max_rows) and (
        max_bytes is None or len(response.body) <= max_bytes
    ):
        return response
    status = int(rules.answer_above_max)
    body: Literal["json", "html"] = "json" if status == 500 else "html"
    refusal = Fault(kind="status", status=status, body=body, detail="The page is too large.")
    return respond_with_fault(refusal, None)


def _parse_paging(request: ReceivedRequest, rules: Rules) -> tuple[int, int]:
    page = _parse_whole_number(request, "page", 1)
    size = _parse_whole_number(request, "page_size", 100)
    if page < 1 or size < 1:
        raise HTTPException(400, "page and page_size must be 1 or more.")
    max_size = rules.max_page_size
    if max_size is None or size <= max_size:
        return page, size
    if rules.page_size_above_max == "400":
        raise HTTPException(400, f"page_size must be at most {max_size}.")
    return page, max_size


def _parse_query(request: ReceivedRequest, rules: Rules) -> LeadQuery:
    unit_ms = 1000 if rules.window_unit == "s" else 1
    after, before = (
        _parse_whole_number(request, name, 0) * unit_ms if name in request.params else None
        for name in ("processed_after", "processed_before")
    )
    return LeadQuery(lead_id=request.params.get("lead_id"), after=after, before=before)


def _parse_whole_number(request: ReceivedRequest, name: str, default: int) -> int:
    text = request.params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise HTTPException(400, f"{name} must be a whole number.")
    return int(text)


# Disabling leads.


def disable_leads(sandbox: SandboxState, request: ReceivedRequest) -> Response:
    """Stop all outreach on the leads of the list."""
    rules, campaign = sandbox.rules, _require_campaign(sandbox, request)
    batch = _parse_batch(request, rules)
    entries = [parse_entry_id(entry) for entry in batch]
    lead_ids = [lead_id for lead_id in entries if lead_id is not None]
    if len(lead_ids) < len(entries):
        raise HTTPException(400, "Every entry must be an object with a lead_id.")
    if rules.numeric_ids and not all(type(entry["lead_id"]) is int for entry in batch):
        raise HTTPException(400, NOT_NUMERIC)
    reason = "There is no lead with this lead_id."
    errors = [
        EntryError(index=index, lead_id=lead_id, reason=reason).to_dict()
        for index, lead_id in enumerate(lead_ids)
        if lead_id not in campaign.first_by_id
    ]
    if errors and rules.unknown_disable in ("404", "400"):
        detail = f"{len(errors)} of {len(entries)} leads are unknown. Nothing was disabled."
        return json_response(int(rules.unknown_disable), {"detail": detail, "errors": errors})
    sandbox.store.disable_leads(campaign, lead_ids)
    shown = errors if rules.unknown_disable == "lead" else []
    return json_response(201, {"disabled": len(entries) - len(errors), "errors": shown})


# OAuth tokens.


def grant_token(sandbox: SandboxState, request: ReceivedRequest) -> Response:
    """Grant a pair of tokens for a password or a refresh token."""
    granted = sandbox.tokens.grant_tokens(_parse_form(request), sandbox.rules, sandbox.clock.now())
    if isinstance(granted, str):
        return _oauth_error(granted)
    return json_response(200, granted, {"Cache-Control": "no-store"})


def revoke_token(sandbox: SandboxState, request: ReceivedRequest) -> Response:
    """Revoke a token."""
    error = sandbox.tokens.revoke_token(_parse_form(request), sandbox.rules)
    return _oauth_error(error) if error else json_response(200, {})


def _oauth_error(error: str) -> Response:
    return json_response(401 if error == "invalid_client" else 400, {"error": error})


def _parse_form(request: ReceivedRequest) -> dict[str, str]:
    if _parse_media_type(request) != "application/x-www-form-urlencoded":
        return {}
    return dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))


# Checks of every request.


def _require_campaign(sandbox: SandboxState, request: ReceivedRequest) -> CampaignLeads:
    """Return the campaign of an authorized request; reject others with 401 or 404."""
    authorization = request.headers.get("authorization")
    if not sandbox.tokens.is_authorized(authorization, sandbox.rules, sandbox.clock.now()):
        detail = "Authentication credentials were not provided or are not valid."
        raise HTTPException(401, detail, {"WWW-Authenticate": 'Bearer realm="api"'})
    campaign = sandbox.store.find_campaign(request.campaign_id)
    if campaign is None:
        raise HTTPException(404, "There is no campaign with this ID.")
    return campaign


def _parse_batch(request: ReceivedRequest, rules: Rules) -> list[Any]:
    """Parse the list in the body; reject a wrong type or size with 400 or 413."""
    if _parse_media_type(request) != "application/json":
        raise HTTPException(400, "The Content-Type must be application/json.")
    if rules.max_body_bytes is not None and len(request.body) > rules.max_body_bytes:
        raise HTTPException(413, "The body is too large.")
    try:
        batch = parse_entries(request.body)
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    if rules.max_batch is not None and len(batch) > rules.max_batch:
        raise HTTPException(400, f"A request may hold at most {rules.max_batch} leads.")
    return batch


def _parse_media_type(request: ReceivedRequest) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
