"""The three calls of the vendor's v1 Leads API.

It knows no database: it is given a transport, a login, and `permit`, which blocks until one more
request may leave and is asked once for each.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from leadloop.client.errors import Stopped, error_for
from leadloop.client.login import Login
from leadloop.client.transport import Received, Transport
from leadloop.core.leads import Sendable
from leadloop.core.receipts import refused_leads
from leadloop.core.results import lead_id_of
from leadloop.core.storable import dumps
from leadloop.core.timestamps import EpochUnit
from leadloop.core.verdicts import Call, Verdict, judge
from leadloop.core.windows import Window, query_bounds

Permit = Callable[[Call], None]

#: A count beyond this is none: it is more than a column of Postgres's type integer holds.
_MOST_RESULTS = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """An accepted create or disable: the leads in `refused` were not taken, with the reasons."""

    refused: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What a lookup of one lead showed: its `result`, or that it is `absent`, or neither."""

    result: Mapping[str, Any] | None
    absent: bool


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of results; `count` is what the vendor says the whole query holds."""

    count: int
    results: Sequence[Any]
    vendor_now: datetime | None


class LeadsApi:
    """Typed calls; each raises an `ApiError` that says what to do (leadloop.client.errors)."""

    def __init__(self, transport: Transport, login: Login, permit: Permit) -> None:
        self._transport = transport
        self._login = login
        self._permit = permit

    def create(self, campaign_id: str, leads: Sequence[Sendable]) -> Receipt:
        """`POST /api/v1/leads/create/{campaign_id}/` with a list of leads.

        The caller asks for the permit itself, before it decides which leads to send: a lead that
        opts out while the budget makes us wait must not be in the list any more.

        Raises:
            InDoubt, Refused, TooLarge, Resend, Paused, Stopped: see leadloop.client.errors.
        """
        content = b"[" + b",".join(lead.body for lead in leads) + b"]"
        received = self._post(Call.CREATE, campaign_id, content, permitted=1)
        return Receipt(
            refused=refused_leads(received.answer.body, {lead.lead_id for lead in leads})
        )

    def disable(self, campaign_id: str, lead_ids: Sequence[str]) -> Receipt:
        """`POST /api/v1/leads/disable/{campaign_id}/` with a list of `{"lead_id"}`.

        Raises:
            Refused, TooLarge, Resend, Paused, Stopped: see leadloop.client.errors.
        """
        content = dumps([{"lead_id": lead_id} for lead_id in lead_ids]).encode()
        received = self._post(Call.DISABLE, campaign_id, content, permitted=0)
        return Receipt(refused=refused_leads(received.answer.body, set(lead_ids)))

    def processed(
        self, campaign_id: str, window: Window, *, unit: EpochUnit, page: int, page_size: int
    ) -> Page:
        """One page of what was processed in a window, by number and with all its filters.

        The vendor's own `next` is never followed: it has lost the filters and names plain http.
        A page beyond the last may be answered 404; it is returned as an empty one.

        Raises:
            Resend, Paused, Stopped: see leadloop.client.errors.
        """
        after, before = query_bounds(window, unit)
        params = {
            "processed_after": str(after),
            "processed_before": str(before),
            "page": str(page),
            "page_size": str(page_size),
        }
        try:
            return self._page(campaign_id, params)
        except Stopped as error:
            if page > 1 and error.answer.status == 404:
                return Page(count=0, results=(), vendor_now=None)
            raise

    def find(self, campaign_id: str, lead_id: str) -> Sighting:
        """Look up one lead, processed or not.

        Only an empty page counts as absence: a 404 may come from anybody, and a page of other
        leads from a server that does not know the parameter.

        Raises:
            Resend, Paused, Stopped: see leadloop.client.errors.
        """
        try:
            page = self._page(campaign_id, {"lead_id": lead_id})
        except Stopped as error:
            if error.answer.status == 404:
                return Sighting(result=None, absent=False)
            raise
        for item in page.results:
            if isinstance(item, dict) and lead_id_of(item) == lead_id:
                return Sighting(result=item, absent=False)
        return Sighting(result=None, absent=not page.results)

    def _page(self, campaign_id: str, params: Mapping[str, str]) -> Page:
        path = f"/api/v1/leads/responses/{quote(campaign_id, safe='')}/"
        received = self._call(Call.READ, "GET", path, permitted=0, params=params)
        body = received.answer.body
        if not (
            isinstance(body, dict)
            and isinstance(body.get("results"), list)
            and type(body.get("count")) is int
            and 0 <= body["count"] <= _MOST_RESULTS
        ):
            raise error_for(Verdict.RESEND, Call.READ, received.answer)
        return Page(count=body["count"], results=body["results"], vendor_now=received.vendor_now)

    def _post(self, call: Call, campaign_id: str, content: bytes, *, permitted: int) -> Received:
        path = f"/api/v1/leads/{call}/{quote(campaign_id, safe='')}/"
        return self._call(call, "POST", path, permitted=permitted, content=content)

    def _call(
        self,
        call: Call,
        method: str,
        path: str,
        *,
        permitted: int,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Received:
        """Send, and once more with a new token where the first one was no longer good."""
        for attempt in itertools.count():
            token = self._login.token()
            if attempt >= permitted:
                self._permit(call)
            received = self._transport.send(
                method, path, token=token, params=params, content=content
            )
            verdict = judge(call, received.answer)
            if verdict is Verdict.ACCEPTED:
                return received
            stale = verdict is Verdict.LOGIN and attempt == 0
            if not (stale and self._login.renew(token)):
                raise error_for(verdict, call, received.answer)
        raise AssertionError("the loop ends by itself")
