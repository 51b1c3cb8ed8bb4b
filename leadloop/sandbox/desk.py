"""The vendor's desk: a call in, an answer out. Knows no sockets and plays no faults."""

from typing import Any
from urllib.parse import parse_qsl

from leadloop.sandbox.exchange import FORM, JSON, Answer, Call, Refused, told
from leadloop.sandbox.intake import EXISTS, Refusal, entries, identity, read
from leadloop.sandbox.results import link, result
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.shelf import Draft, Lead, Query, Shelf
from leadloop.sandbox.state import Sandbox

# Creating.


def create(sandbox: Sandbox, call: Call) -> Answer:
    """Take a batch of leads in, or say what is wrong with it."""
    rules, shelf = sandbox.rules, _opened(sandbox, call)
    batch = _batch(call, rules)
    found = [read(index, entry, rules) for index, entry in enumerate(batch)]
    drafts, refusals = _sorted_out(sandbox, shelf, found)
    if refusals and rules.bad_lead != "lead":
        return _batch_refused(len(batch), refusals, rules)
    sandbox.books.create(shelf, drafts)
    errors = [refusal.shown() for refusal in refusals]
    return told(201, {"created": len(drafts), "errors": errors})


def _sorted_out(
    sandbox: Sandbox, shelf: Shelf, found: list[Draft | Refusal]
) -> tuple[list[Draft], list[Refusal]]:
    drafts: dict[int, Draft] = {}
    refusals, taken = [], set[str]()
    for index, item in enumerate(found):
        if isinstance(item, Refusal):
            refusals.append(item)
        elif sandbox.rules.repeat == "error" and _is_repeat(sandbox, shelf, item, taken):
            refusals.append(Refusal(index=index, lead_id=item.lead_id, reason=EXISTS))
        else:
            drafts[index] = item
            taken.add(item.lead_id)
    return list(drafts.values()), refusals


def _is_repeat(sandbox: Sandbox, shelf: Shelf, draft: Draft, taken: set[str]) -> bool:
    if draft.lead_id in shelf.first:
        sandbox.books.refuse_repeat(shelf, draft.lead_id)
        return True
    return draft.lead_id in taken


def _batch_refused(size: int, refusals: list[Refusal], rules: Rules) -> Answer:
    if rules.bad_lead == "batch-anonymous":
        return told(400, {"detail": "The batch holds invalid data. Nothing was created."})
    detail = f"{len(refusals)} of {size} leads are invalid. Nothing was created."
    return told(400, {"detail": detail, "errors": [r.shown() for r in refusals]})


# Reading.


def responses(sandbox: Sandbox, call: Call) -> Answer:
    """One page of the leads that the query matches."""
    rules, shelf = sandbox.rules, _opened(sandbox, call)
    page, size = _paging(call, rules)
    start = (page - 1) * size
    count, leads = sandbox.books.page(shelf, _query(call, rules), max(0, start + call.shift), size)
    if start >= count and page > 1 and rules.page_beyond_last == "404":
        raise Refused(404, "Invalid page.")
    content = {
        "count": count if rules.count == "query" else len(leads),
        "next": _link(call, rules, page + 1, size)
        if _goes_on(rules, start + size, count)
        else None,
        "previous": _link(call, rules, page - 1, size) if page > 1 else None,
        "results": [_row(sandbox, shelf, lead) for lead in leads],
    }
    return told(200, content)


def _goes_on(rules: Rules, end: int, count: int) -> bool:
    """Whether `next` names a page, which is there or not."""
    return rules.next == "always" or (rules.next == "right" and end < count)


def _row(sandbox: Sandbox, shelf: Shelf, lead: Lead) -> dict[str, Any]:
    done = lead.processed_at is not None
    outcome = sandbox.books.outcome(shelf, lead) if done else None
    return result(shelf, lead, outcome, sandbox.rules)


def _link(call: Call, rules: Rules, page: int, size: int) -> str:
    return link(rules, base=call.base, path=call.path, params=call.params, page=page, size=size)


def _paging(call: Call, rules: Rules) -> tuple[int, int]:
    page, size = _whole(call, "page", 1), _whole(call, "page_size", 100)
    if page < 1 or size < 1:
        raise Refused(400, "page and page_size must be 1 or more.")
    greatest = rules.max_page_size
    if greatest is None or size <= greatest:
        return page, size
    if rules.page_size_above_max == "400":
        raise Refused(400, f"page_size must be at most {greatest}.")
    return page, greatest


def _query(call: Call, rules: Rules) -> Query:
    unit = 1000 if rules.window_unit == "s" else 1
    bounds = {
        name: _whole(call, name, 0) * unit if name in call.params else None
        for name in ("processed_after", "processed_before")
    }
    return Query(
        lead_id=call.params.get("lead_id"),
        after=bounds["processed_after"],
        before=bounds["processed_before"],
    )


def _whole(call: Call, name: str, default: int) -> int:
    text = call.params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Refused(400, f"{name} must be a whole number.")
    return int(text)


# Disabling.


def disable(sandbox: Sandbox, call: Call) -> Answer:
    """Stop all outreach on the leads of the list."""
    rules, shelf = sandbox.rules, _opened(sandbox, call)
    named = [identity(entry) for entry in _batch(call, rules)]
    lead_ids = [lead_id for lead_id in named if lead_id is not None]
    if len(lead_ids) < len(named):
        raise Refused(400, "Every entry must be an object with a lead_id.")
    unknown = [
        Refusal(index=index, lead_id=lead_id, reason="There is no lead with this lead_id.")
        for index, lead_id in enumerate(lead_ids)
        if lead_id not in shelf.first
    ]
    if unknown and rules.unknown_disable in ("404", "400"):
        detail = f"{len(unknown)} of {len(named)} leads are unknown. Nothing was disabled."
        errors = [refusal.shown() for refusal in unknown]
        return told(int(rules.unknown_disable), {"detail": detail, "errors": errors})
    sandbox.books.disable(shelf, lead_ids)
    shown = unknown if rules.unknown_disable == "lead" else []
    disabled = len(named) - len(unknown)
    return told(201, {"disabled": disabled, "errors": [r.shown() for r in shown]})


# Tokens.


def token(sandbox: Sandbox, call: Call) -> Answer:
    """A pair of tokens for a password or a refresh token."""
    granted = sandbox.access.grant(_form(call), sandbox.rules, sandbox.clock.now())
    if isinstance(granted, str):
        return _oauth_error(granted)
    return told(200, granted, {"Cache-Control": "no-store"})


def revoke(sandbox: Sandbox, call: Call) -> Answer:
    """End a token."""
    error = sandbox.access.revoke(_form(call), sandbox.rules)
    return _oauth_error(error) if error else told(200, {})


def _oauth_error(error: str) -> Answer:
    return told(401 if error == "invalid_client" else 400, {"error": error})


def _form(call: Call) -> dict[str, str]:
    if _media_type(call) != FORM:
        return {}
    return dict(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True))


# What every call has to pass.


def _opened(sandbox: Sandbox, call: Call) -> Shelf:
    if not sandbox.access.allows(
        call.headers.get("authorization"), sandbox.rules, sandbox.clock.now()
    ):
        detail = "Authentication credentials were not provided or are not valid."
        raise Refused(401, detail, {"WWW-Authenticate": 'Bearer realm="api"'})
    shelf = sandbox.books.shelf(call.campaign_id)
    if shelf is None:
        raise Refused(404, "There is no campaign with this ID.")
    return shelf


def _batch(call: Call, rules: Rules) -> list[Any]:
    if _media_type(call) != JSON:
        raise Refused(400, f"The Content-Type must be {JSON}.")
    if rules.max_body_bytes is not None and len(call.body) > rules.max_body_bytes:
        raise Refused(413, "The body is too large.")
    try:
        batch = entries(call.body)
    except ValueError as error:
        raise Refused(400, str(error)) from None
    if rules.max_batch is not None and len(batch) > rules.max_batch:
        raise Refused(400, f"A request may hold at most {rules.max_batch} leads.")
    return batch


def _media_type(call: Call) -> str:
    return call.headers.get("content-type", "").partition(";")[0].strip().lower()
