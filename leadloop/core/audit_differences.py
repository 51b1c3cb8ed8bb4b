"""The differences that an audit finds between our records and the vendor's listing."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from leadloop.core.phones import is_same_number
from leadloop.core.postgres_json import dump_json
from leadloop.core.results import (
    Outcome,
    UnreadableResult,
    is_of_other_campaign,
    is_unprocessed,
    parse_lead_id,
    parse_result,
)

#: Differences in a person's data.
PERSON_DIFFERENCES: Mapping[str, str] = {
    "phone_differs": "created here, with another phone number at the vendor",
    "name_differs": "created here, with another name at the vendor",
    "state_differs": "created here, with another state at the vendor",
}

#: The differences between our records and the vendor's, by name; each counts leads.
DIFFERENCES: Mapping[str, str] = {
    "missing_there": "created here, and proven missing at the vendor",
    "missing_here": "at the vendor, without a row in `leads`",
    "new_but_there": "at the vendor, and `new` here: the next push would send it once more",
    "rejected_but_there": "at the vendor, and `rejected` here",
    "cancelled_but_there": "at the vendor, and `cancelled` here: the person has opted out",
    "created_twice": "listed more than once at the vendor",
    **PERSON_DIFFERENCES,
    "outcome_missing_here": "processed at the vendor before the watermark (or before any poll),"
    " without an outcome here",
    "outcome_differs": "with an outcome on both sides that differs in time, id, name or cost",
    "outcome_missing_there": "with an outcome here that the vendor does not list",
    "in_doubt_there": "in doubt here, and at the vendor",
    "in_doubt_not_there": "in doubt here, and not listed by the vendor after `LEADLOOP_SETTLE`",
    "called_after_opt_out": "processed or called at the vendor after the opt-out was confirmed",
    "opt_out_not_sent": "at the vendor, and its opt-out is `cancelled` here: it was never sent",
    "unreadable": "listed by the vendor without an id, or with a `processed_at` that is not a time",
}

#: The differences that a row which the listing did not show could cause.
ABSENCES = ("missing_there", "outcome_missing_there", "in_doubt_not_there")

#: Other counts that an audit reports.
REMARKS: Mapping[str, str] = {
    "absence_unproven": "created or in doubt here and not listed, which proves nothing: the lead is"
    " too new, or unprocessed at a vendor that lists processed leads only, or the listing shifted",
    "outcome_not_polled": "processed at the vendor after the watermark: the next poll stores it",
    "counts_differ": "(sums behind the views, no leads) in `leadloop.counts` that differ from the"
    " rows: `--repair` counts the rows again; 0 until `leadloop init` has counted them",
    "repaired_leads": "that were in doubt or `new` here, or opted out as if the vendor did not have"
    " them, and are `created` now; while creates are held, also rejected or missing ones",
    "repaired_outcomes": "whose outcome was stored or updated",
    "repaired_opt_outs": "whose opt-out is `requested` again: the next disable sends it",
}

#: The largest difference at which two clocks count as equal: the header is in whole seconds.
_MAX_CLOCK_DIFFERENCE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonFacts:
    """A person's data as one side records it; None: not recorded."""

    phone_number: str | None
    contact_name: str | None
    state_code: str | None

    def __repr__(self) -> str:
        """Return no values: all of them are personal data."""
        return "PersonFacts(...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedLead:
    """One row of the vendor's listing.

    `copy_key` distinguishes rows of the same `lead_id` and stays when a lead is processed.
    `lead_id` is empty if the row names no lead, and None if it is another campaign's. It counts in
    the vendor's count, and otherwise it is passed over. `last_attempt_at` is the time of the last
    attempt. `is_unprocessed`: it shows neither a time of processing, an outcome nor an attempt.
    """

    lead_id: str | None
    copy_key: str
    facts: PersonFacts
    outcome: Outcome | None
    last_attempt_at: datetime | None
    is_unprocessed: bool
    unreadable: bool

    def __repr__(self) -> str:
        """Return the id alone: the rest is personal data."""
        return f"ListedLead({self.lead_id!r})"


def parse_listing_page(results: Iterable[Any], campaign_id: str) -> Iterator[ListedLead]:
    """Parse the rows of one page of a campaign's listing.

    Equal rows of one page are distinct rows and get distinct `copy_key`s. Equal rows of two pages
    may be one row that shifted between pages, and get the same `copy_key`.
    """
    alike: Counter[tuple[str, str]] = Counter()
    for result in results:
        lead_id = (parse_lead_id(result) if isinstance(result, dict) else None) or ""
        made = (
            dump_json(result.get("created_at"))
            if lead_id
            else hashlib.sha256(dump_json(result).encode()).hexdigest()
        )
        if isinstance(result, dict) and is_of_other_campaign(result, campaign_id):
            yield _pass_over(result["campaign_id"], lead_id, made)
            continue
        alike[lead_id, made] += 1
        try:
            read = parse_result(result)
        except UnreadableResult:
            read = None
        attempts = read.attempts if read else ()
        times = [datetime.fromisoformat(each.occurred_at) for each in attempts if each.occurred_at]
        yield ListedLead(
            lead_id=lead_id,
            copy_key=f"{made}#{alike[lead_id, made]}",
            facts=_parse_facts(result if isinstance(result, dict) else {}),
            outcome=read.outcome if read else None,
            last_attempt_at=max(times, default=None),
            is_unprocessed=read is not None and is_unprocessed(result),
            unreadable=read is None,
        )


def _pass_over(*identity: Any) -> ListedLead:
    return ListedLead(
        lead_id=None,
        copy_key=dump_json(identity),
        facts=_parse_facts({}),
        outcome=None,
        last_attempt_at=None,
        is_unprocessed=False,
        unreadable=False,
    )


def compare_person(ours: PersonFacts, theirs: PersonFacts, region: str) -> frozenset[str]:
    """Return the names of the differences between our data of a sent lead and the vendor's.

    Phone numbers are compared as E.164, names without surrounding blanks. A value that the vendor
    does not list never differs.
    """
    found = {
        "phone_differs": theirs.phone_number is not None
        and not is_same_number(ours.phone_number or "", theirs.phone_number, region),
        "name_differs": theirs.contact_name is not None
        and (ours.contact_name or "").strip() != theirs.contact_name.strip(),
        "state_differs": theirs.state_code is not None
        and (ours.state_code or "").strip().upper() != theirs.state_code.strip().upper(),
    }
    return frozenset(name for name, differs in found.items() if differs)


def measure_clock_offset(vendor_now: datetime | None, now: datetime) -> timedelta:
    """Return how far the vendor's clock is ahead (negative: behind); zero if close or unknown."""
    ahead = timedelta(0) if vendor_now is None else vendor_now - now
    return ahead if abs(ahead) > _MAX_CLOCK_DIFFERENCE else timedelta(0)


def _parse_facts(result: Mapping[str, Any]) -> PersonFacts:
    phone = result.get("phone_number")
    return PersonFacts(
        phone_number=_as_text(result.get("contact_number") if phone is None else phone),
        contact_name=_as_text(result.get("contact_name")),
        state_code=_as_text(result.get("state_code")),
    )


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else dump_json(value)
