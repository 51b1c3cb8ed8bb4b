"""What an audit looks for, and the decisions that comparing two sets of books takes."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import phonenumbers

from leadloop.core.leads import InvalidLead, format_e164
from leadloop.core.postgres_json import dump_json
from leadloop.core.results import Outcome, UnreadableResult, parse_lead_id, parse_result

#: Differences in what the two sides say of a person.
PERSON_DIFFERENCES: Mapping[str, str] = {
    "phone_differs": "created here, with another phone number at the vendor",
    "name_differs": "created here, with another name at the vendor",
    "state_differs": "created here, with another state at the vendor",
}

#: By name, what each difference between the vendor's books and ours means, in leads.
DIFFERENCES: Mapping[str, str] = {
    "missing_there": "created here, and proven not to be at the vendor",
    "missing_here": "at the vendor, and no row of `leads`",
    "new_but_there": "at the vendor, and `new` here: the next push would send it once more",
    "rejected_but_there": "at the vendor, and `rejected` here",
    "cancelled_but_there": "at the vendor, and `cancelled` here: the person has opted out",
    "created_twice": "more than once at the vendor",
    **PERSON_DIFFERENCES,
    "outcome_missing_here": "processed at the vendor before the watermark (or before any poll), and"
    " no outcome here",
    "outcome_differs": "with an outcome on both sides whose time, id, name or cost differ",
    "outcome_missing_there": "with an outcome here that the vendor does not show",
    "in_doubt_there": "in doubt here, and at the vendor",
    "in_doubt_not_there": "in doubt here, and not shown by the vendor after `LEADLOOP_SETTLE`",
    "called_after_opt_out": "processed or called at the vendor after the opt-out was confirmed",
    "opt_out_not_sent": "at the vendor, and its opt-out is `cancelled` here: it was not told",
    "unreadable": "shown by the vendor without an id, or with a `processed_at` that is no time",
}

#: What an audit tells beside the differences.
REMARKS: Mapping[str, str] = {
    "absence_unproven": "created or in doubt here and not shown, where that proves nothing: too"
    " new, not processed at a vendor that shows processed leads only, or the listing shifted",
    "outcome_not_polled": "processed at the vendor after the watermark: the next poll stores it",
    "repaired_leads": "that were in doubt or `new` here, or opted out as if they were not there,"
    " and are `created` now",
    "repaired_outcomes": "whose outcome was stored or brought up to date",
    "repaired_opt_outs": "whose opt-out is `requested` again, so that the next disable sends it",
}

#: A vendor's clock that is off by no more is taken to agree with ours: its header is in seconds.
_CLOCKS_AGREE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonFacts:
    """What both sides say of a person; None: not said."""

    phone_number: str | None
    contact_name: str | None
    state_code: str | None

    def __repr__(self) -> str:
        """Nothing: all of it is a person's data."""
        return "PersonFacts(...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedLead:
    """One row of the vendor's listing.

    `copy` tells rows of the same `lead_id` apart; it does not change when a lead is processed.
    Where the row names no lead, `lead_id` is empty. `touched_at` is when it was last called.
    """

    lead_id: str
    copy_key: str
    facts: PersonFacts
    outcome: Outcome | None
    last_attempt_at: datetime | None
    unreadable: bool

    def __repr__(self) -> str:
        """The id alone: the rest is a person's data."""
        return f"ListedLead({self.lead_id!r})"


def parse_listing_page(results: Iterable[Any]) -> Iterator[ListedLead]:
    """Take a page's rows apart.

    Two rows of one answer are two rows, however alike: each gets a `copy` of its own. Rows alike in
    two answers may be one that has shifted, and get the same.
    """
    alike: Counter[tuple[str, str]] = Counter()
    for result in results:
        lead_id = (parse_lead_id(result) if isinstance(result, dict) else None) or ""
        made = dump_json(result.get("created_at")) if lead_id else _digest(result)
        alike[lead_id, made] += 1
        yield _listed(result, lead_id, f"{made}#{alike[lead_id, made]}")


def compare_person(ours: PersonFacts, theirs: PersonFacts, region: str) -> frozenset[str]:
    """The names of the differences between two accounts of a lead that was sent.

    Phone numbers are compared as E.164, names without the blanks around them. What the vendor does
    not show does not differ.
    """
    found = {
        "phone_differs": theirs.phone_number is not None
        and not _same_number(ours.phone_number or "", theirs.phone_number, region),
        "name_differs": theirs.contact_name is not None
        and (ours.contact_name or "").strip() != theirs.contact_name.strip(),
        "state_differs": theirs.state_code is not None
        and (ours.state_code or "").strip().upper() != theirs.state_code.strip().upper(),
    }
    return frozenset(name for name, differs in found.items() if differs)


def find_calling_code(region: str) -> str:
    """What numbers of a region begin with in E.164, without the plus (`1` for the US)."""
    return str(phonenumbers.country_code_for_region(region))


def measure_vendor_lead(vendor_now: datetime | None, now: datetime) -> timedelta:
    """How far the vendor's clock is ahead of ours; nothing where it is not told, or agrees."""
    ahead = timedelta(0) if vendor_now is None else vendor_now - now
    return ahead if abs(ahead) > _CLOCKS_AGREE else timedelta(0)


def _listed(result: Any, lead_id: str, copy: str) -> ListedLead:
    try:
        read = parse_result(result)
    except UnreadableResult:
        read = None
    attempts = read.attempts if read else ()
    times = [datetime.fromisoformat(each.occurred_at) for each in attempts if each.occurred_at]
    return ListedLead(
        lead_id=lead_id,
        copy_key=copy,
        facts=_facts(result) if isinstance(result, dict) else _facts({}),
        outcome=read.outcome if read else None,
        last_attempt_at=max(times, default=None),
        unreadable=read is None,
    )


def _facts(result: Mapping[str, Any]) -> PersonFacts:
    phone = result.get("phone_number")
    return PersonFacts(
        phone_number=_text(result.get("contact_number") if phone is None else phone),
        contact_name=_text(result.get("contact_name")),
        state_code=_text(result.get("state_code")),
    )


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else dump_json(value)


def _digest(result: Any) -> str:
    return hashlib.sha256(dump_json(result).encode()).hexdigest()


def _same_number(ours: str, theirs: str, region: str) -> bool:
    # A vendor may leave out the plus, and libphonenumber then takes the digits for something else.
    return _digits(ours, region) in (_digits(theirs, region), re.sub(r"\D", "", theirs))


def _digits(number: str, region: str) -> str:
    try:
        return format_e164(number, region).removeprefix("+")
    except InvalidLead:
        return re.sub(r"\D", "", number)
