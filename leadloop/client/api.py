"""The three calls of the vendor's v1 Leads API.

It knows no database: it is given a transport, a login, `permit`, which blocks until one more
request may leave and is asked once for each, and `paused`, which is told when it wants none.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from leadloop.client.auth import Login
from leadloop.client.errors import ApiError, Paused, Stopped, error_for
from leadloop.client.transport import Received, Transport
from leadloop.core.batch_response import Reading, read_receipt
from leadloop.core.leads import Sendable
from leadloop.core.postgres_json import dumps
from leadloop.core.results import lead_id_of
from leadloop.core.timestamps import EpochUnit
from leadloop.core.verdicts import UNCLEAR, Answer, Call, Verdict, judge
from leadloop.core.windows import Window, query_bounds

Permit = Callable[[Call], None]

#: A count beyond this is none: it is more than a column of Postgres's type integer holds.
_MOST_RESULTS = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What a lookup of one lead showed: its `result`, or that it is `absent`, or neither."""

    result: Mapping[str, Any] | None
    absent: bool


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of results; `count` is what the vendor says the whole query holds.

    `has_next` is whether it names a next page. That is a sign and no more: the link is not kept.
    """

    count: int
    results: Sequence[Any]
    has_next: bool
    vendor_now: datetime | None


class LeadsApi:
    """Typed calls; each raises an `ApiError` that says what to do (leadloop.client.errors)."""

    def __init__(
        self,
        transport: Transport,
        login: Login,
        permit: Permit,
        paused: Callable[[float | None], None],
    ) -> None:
        self._transport = transport
        self._login = login
        self._permit = permit
        self._paused = paused

    def log_in(self) -> None:
        """Have a token that is good for the next minute: a create must not have to wait for one.

        Raises:
            Resend, Paused, Stopped: see leadloop.client.errors.
        """
        with self._pauses_heeded():
            self._login.token()

    def create(self, campaign_id: str, leads: Sequence[Sendable]) -> Reading:
        """`POST /api/v1/leads/create/{campaign_id}/` with a list of leads.

        The caller logs in and asks for the permit itself, before it decides which leads to send: a
        lead that opts out while either makes us wait must not be in the list any more. For the
        same reason the token at hand is taken as it is, which may mean a 401, and where it was no
        longer good the leads are not sent a second time here.

        Raises:
            InDoubt, Refused, TooLarge, Resend, Paused, Stopped: see leadloop.client.errors.
        """
        content = b"[" + b",".join(lead.body for lead in leads) + b"]"
        path = f"/api/v1/leads/create/{quote(campaign_id, safe='')}/"
        with self._pauses_heeded():
            token = self._login.at_hand()
            received = self._transport.send("POST", path, token=token, content=content)
            verdict = judge(Call.CREATE, received.answer)
            if verdict is Verdict.LOGIN and self._login.renew(token):
                verdict = Verdict.RESEND
            by_id = {lead.lead_id: lead for lead in leads}
            return _read(
                Call.CREATE, received.answer, verdict, by_id, lambda key: by_id[key].own_keys()
            )

    def disable(self, campaign_id: str, lead_ids: Sequence[str]) -> Reading:
        """`POST /api/v1/leads/disable/{campaign_id}/` with a list of `{"lead_id"}`.

        Raises:
            Refused, TooLarge, Resend, Paused, Stopped: see leadloop.client.errors.
        """
        content = dumps([{"lead_id": lead_id} for lead_id in lead_ids]).encode()
        path = f"/api/v1/leads/disable/{quote(campaign_id, safe='')}/"
        with self._pauses_heeded():
            received, verdict = self._exchange(Call.DISABLE, "POST", path, content=content)
            return _read(Call.DISABLE, received.answer, verdict, lead_ids, lambda _: ())

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
        return self._page_or_end(campaign_id, params)

    def everything(
        self, campaign_id: str, *, page: int, page_size: int, lead_id: str | None = None
    ) -> Page:
        """One page of all that the vendor holds of a campaign, by number, or of one lead's rows.

        Whether that includes leads not yet processed is for the vendor to say. A page beyond the
        last may be answered 404; it is returned as an empty one.

        Raises:
            Resend, Paused, Stopped: see leadloop.client.errors.
        """
        params = {"page": str(page), "page_size": str(page_size)}
        return self._page_or_end(campaign_id, params | ({"lead_id": lead_id} if lead_id else {}))

    def find(self, campaign_id: str, lead_id: str) -> Sighting:
        """Look up one lead, processed or not.

        Only an empty page that counts nothing is absence: a 404 may come from anybody, a page of
        other leads from a server that does not know the parameter, and an empty page of one result
        from rows that have just moved.

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
        return Sighting(result=None, absent=page.count == 0 and not page.results)

    def _page_or_end(self, campaign_id: str, params: Mapping[str, str]) -> Page:
        try:
            return self._page(campaign_id, params)
        except Stopped as error:
            if params["page"] != "1" and error.answer.status == 404:
                return Page(count=0, results=(), has_next=False, vendor_now=None)
            raise

    def _page(self, campaign_id: str, params: Mapping[str, str]) -> Page:
        path = f"/api/v1/leads/responses/{quote(campaign_id, safe='')}/"
        with self._pauses_heeded():
            received, verdict = self._exchange(Call.READ, "GET", path, params=params)
            if verdict is not Verdict.ACCEPTED:
                raise error_for(verdict, Call.READ, received.answer)
        body = received.answer.body
        if not (
            isinstance(body, dict)
            and isinstance(body.get("results"), list)
            and type(body.get("count")) is int
            and 0 <= body["count"] <= _MOST_RESULTS
        ):
            raise error_for(Verdict.RESEND, Call.READ, received.answer)
        # An empty page is the last one, whatever it names.
        return Page(
            count=body["count"],
            results=body["results"],
            has_next=bool(body.get("next") and body["results"]),
            vendor_now=received.vendor_now,
        )

    def _exchange(
        self,
        call: Call,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> tuple[Received, Verdict]:
        """Send what may be repeated, once more with a new token where the first was not good."""
        token = self._login.token()
        received, verdict = self._permitted(call, method, path, token, params, content)
        if verdict is Verdict.LOGIN and self._login.renew(token):
            token = self._login.token()
            received, verdict = self._permitted(call, method, path, token, params, content)
        return received, verdict

    def _permitted(
        self,
        call: Call,
        method: str,
        path: str,
        token: str,
        params: Mapping[str, str] | None,
        content: bytes | None,
    ) -> tuple[Received, Verdict]:
        self._permit(call)
        received = self._transport.send(method, path, token=token, params=params, content=content)
        return received, judge(call, received.answer)

    @contextmanager
    def _pauses_heeded(self) -> Iterator[None]:
        """Whoever hears of a pause tells the whole business at once, whatever else was wrong."""
        try:
            yield
        except ApiError as error:
            if isinstance(error, Paused) or error.answer.asks_for_a_pause:
                self._paused(error.answer.retry_after_s)
            raise


def _read(
    call: Call,
    answer: Answer,
    verdict: Verdict,
    sent: Collection[str],
    own_keys: Callable[[str], Collection[str]],
) -> Reading:
    """What an answer that was accepted says of the leads of its request.

    Raises:
        ApiError: it was not, or says of some of them that they were not, or might not have been,
            taken, and does not say of which. Its `reading` tells what was said of the others.
    """
    if verdict not in (Verdict.ACCEPTED, Verdict.REFUSED):
        raise error_for(verdict, call, answer)
    reading = read_receipt(call, answer.body, sent, own_keys)
    if verdict is Verdict.ACCEPTED and reading.unclear:
        verdict = UNCLEAR[call]
    if verdict is not Verdict.ACCEPTED:
        raise error_for(verdict, call, answer, reading)
    return reading
