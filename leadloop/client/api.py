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

from leadloop.client.auth import TokenProvider
from leadloop.client.errors import ApiError, Fatal, RateLimited, error_for_verdict
from leadloop.client.transport import ReceivedResponse, Transport
from leadloop.core.batch_response import BatchResult, parse_batch_response
from leadloop.core.leads import PreparedLead
from leadloop.core.postgres_json import dump_json
from leadloop.core.results import parse_lead_id
from leadloop.core.timestamps import EpochUnit
from leadloop.core.verdicts import (
    AMBIGUOUS_VERDICTS,
    ApiCall,
    ApiResponse,
    Verdict,
    classify_response,
)
from leadloop.core.windows import Window, query_bounds

AcquirePermit = Callable[[ApiCall], None]

#: A count beyond this is none: it is more than a column of Postgres's type integer holds.
_MOST_RESULTS = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class LookupResult:
    """What a lookup of one lead showed: its `result`, or that it is `absent`, or neither."""

    result: Mapping[str, Any] | None
    absent: bool


@dataclass(frozen=True, kw_only=True)
class ResultPage:
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
        login: TokenProvider,
        permit: AcquirePermit,
        paused: Callable[[float | None], None],
    ) -> None:
        self._transport = transport
        self._login = login
        self._permit = permit
        self._paused = paused

    def ensure_token(self) -> None:
        """Have a token that is good for the next minute: a create must not have to wait for one.

        Raises:
            Retryable, RateLimited, Fatal: see leadloop.client.errors.
        """
        with self._pauses_heeded():
            self._login.fresh_token()

    def create(self, campaign_id: str, leads: Sequence[PreparedLead]) -> BatchResult:
        """`POST /api/v1/leads/create/{campaign_id}/` with a list of leads.

        The caller logs in and asks for the permit itself, before it decides which leads to send: a
        lead that opts out while either makes us wait must not be in the list any more. For the
        same reason the token at hand is taken as it is, which may mean a 401, and where it was no
        longer good the leads are not sent a second time here.

        Raises:
            InDoubt, Refused, TooLarge, Retryable, RateLimited, Fatal: see leadloop.client.errors.
        """
        content = b"[" + b",".join(lead.body for lead in leads) + b"]"
        path = f"/api/v1/leads/create/{quote(campaign_id, safe='')}/"
        with self._pauses_heeded():
            token = self._login.cached_token()
            received = self._transport.send("POST", path, token=token, content=content)
            verdict = classify_response(ApiCall.CREATE, received.response)
            if verdict is Verdict.UNAUTHORIZED and self._login.renew(token):
                verdict = Verdict.RETRY
            by_id = {lead.lead_id: lead for lead in leads}
            return _read(
                ApiCall.CREATE,
                received.response,
                verdict,
                by_id,
                lambda key: by_id[key].custom_keys(),
            )

    def disable(self, campaign_id: str, lead_ids: Sequence[str]) -> BatchResult:
        """`POST /api/v1/leads/disable/{campaign_id}/` with a list of `{"lead_id"}`.

        Raises:
            Refused, TooLarge, Retryable, RateLimited, Fatal: see leadloop.client.errors.
        """
        content = dump_json([{"lead_id": lead_id} for lead_id in lead_ids]).encode()
        path = f"/api/v1/leads/disable/{quote(campaign_id, safe='')}/"
        with self._pauses_heeded():
            received, verdict = self._exchange(ApiCall.DISABLE, "POST", path, content=content)
            return _read(ApiCall.DISABLE, received.response, verdict, lead_ids, lambda _: ())

    def list_processed(
        self, campaign_id: str, window: Window, *, unit: EpochUnit, page: int, page_size: int
    ) -> ResultPage:
        """One page of what was processed in a window, by number and with all its filters.

        The vendor's own `next` is never followed: it has lost the filters and names plain http.
        A page beyond the last may be answered 404; it is returned as an empty one.

        Raises:
            Retryable, RateLimited, Fatal: see leadloop.client.errors.
        """
        after, before = query_bounds(window, unit)
        params = {
            "processed_after": str(after),
            "processed_before": str(before),
            "page": str(page),
            "page_size": str(page_size),
        }
        return self._page_or_end(campaign_id, params)

    def list_all(
        self, campaign_id: str, *, page: int, page_size: int, lead_id: str | None = None
    ) -> ResultPage:
        """One page of all that the vendor holds of a campaign, by number, or of one lead's rows.

        Whether that includes leads not yet processed is for the vendor to say. A page beyond the
        last may be answered 404; it is returned as an empty one.

        Raises:
            Retryable, RateLimited, Fatal: see leadloop.client.errors.
        """
        params = {"page": str(page), "page_size": str(page_size)}
        return self._page_or_end(campaign_id, params | ({"lead_id": lead_id} if lead_id else {}))

    def look_up(self, campaign_id: str, lead_id: str) -> LookupResult:
        """Look up one lead, processed or not.

        Only an empty page that counts nothing is absence: a 404 may come from anybody, a page of
        other leads from a server that does not know the parameter, and an empty page of one result
        from rows that have just moved.

        Raises:
            Retryable, RateLimited, Fatal: see leadloop.client.errors.
        """
        try:
            page = self._page(campaign_id, {"lead_id": lead_id})
        except Fatal as error:
            if error.response.status == 404:
                return LookupResult(result=None, absent=False)
            raise
        for item in page.results:
            if isinstance(item, dict) and parse_lead_id(item) == lead_id:
                return LookupResult(result=item, absent=False)
        return LookupResult(result=None, absent=page.count == 0 and not page.results)

    def _page_or_end(self, campaign_id: str, params: Mapping[str, str]) -> ResultPage:
        try:
            return self._page(campaign_id, params)
        except Fatal as error:
            if params["page"] != "1" and error.response.status == 404:
                return ResultPage(count=0, results=(), has_next=False, vendor_now=None)
            raise

    def _page(self, campaign_id: str, params: Mapping[str, str]) -> ResultPage:
        path = f"/api/v1/leads/responses/{quote(campaign_id, safe='')}/"
        with self._pauses_heeded():
            received, verdict = self._exchange(ApiCall.READ, "GET", path, params=params)
            if verdict is not Verdict.ACCEPTED:
                raise error_for_verdict(verdict, ApiCall.READ, received.response)
        body = received.response.body
        if not (
            isinstance(body, dict)
            and isinstance(body.get("results"), list)
            and type(body.get("count")) is int
            and 0 <= body["count"] <= _MOST_RESULTS
        ):
            raise error_for_verdict(Verdict.RETRY, ApiCall.READ, received.response)
        # An empty page is the last one, whatever it names.
        return ResultPage(
            count=body["count"],
            results=body["results"],
            has_next=bool(body.get("next") and body["results"]),
            vendor_now=received.vendor_now,
        )

    def _exchange(
        self,
        call: ApiCall,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> tuple[ReceivedResponse, Verdict]:
        """Send what may be repeated, once more with a new token where the first was not good."""
        token = self._login.fresh_token()
        received, verdict = self._permitted(call, method, path, token, params, content)
        if verdict is Verdict.UNAUTHORIZED and self._login.renew(token):
            token = self._login.fresh_token()
            received, verdict = self._permitted(call, method, path, token, params, content)
        return received, verdict

    def _permitted(
        self,
        call: ApiCall,
        method: str,
        path: str,
        token: str,
        params: Mapping[str, str] | None,
        content: bytes | None,
    ) -> tuple[ReceivedResponse, Verdict]:
        self._permit(call)
        received = self._transport.send(method, path, token=token, params=params, content=content)
        return received, classify_response(call, received.response)

    @contextmanager
    def _pauses_heeded(self) -> Iterator[None]:
        """Whoever hears of a pause tells the whole business at once, whatever else was wrong."""
        try:
            yield
        except ApiError as error:
            if isinstance(error, RateLimited) or error.response.requests_pause:
                self._paused(error.response.retry_after_s)
            raise


def _read(
    call: ApiCall,
    answer: ApiResponse,
    verdict: Verdict,
    sent: Collection[str],
    own_keys: Callable[[str], Collection[str]],
) -> BatchResult:
    """What an answer that was accepted says of the leads of its request.

    Raises:
        ApiError: it was not, or says of some of them that they were not, or might not have been,
            taken, and does not say of which. Its `reading` tells what was said of the others.
    """
    if verdict not in (Verdict.ACCEPTED, Verdict.REJECTED):
        raise error_for_verdict(verdict, call, answer)
    reading = parse_batch_response(call, answer.body, sent, own_keys)
    if verdict is Verdict.ACCEPTED and reading.ambiguous:
        verdict = AMBIGUOUS_VERDICTS[call]
    if verdict is not Verdict.ACCEPTED:
        raise error_for_verdict(verdict, call, answer, reading)
    return reading
