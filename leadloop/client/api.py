"""The calls of the vendor's v1 Leads API: create, disable, and paginated reads.

The client knows no database. It is given a transport, a token provider, `acquire_permit`, which
blocks until one more request may leave and is called once for each, and the retries of reads. Each
read is retried by itself; a create never, and a disable by its job.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from leadloop.client.auth import TokenProvider
from leadloop.client.errors import ApiError, Fatal, error_for_verdict
from leadloop.client.retries import RequestRetries
from leadloop.client.transport import ReceivedResponse, Transport
from leadloop.core.batch_response import BatchResult, parse_batch_response
from leadloop.core.leads import PreparedLead, write_lead_id
from leadloop.core.postgres_json import dump_json
from leadloop.core.results import is_of_other_campaign, parse_lead_id
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

#: The highest valid count: the largest value of Postgres's type integer.
_MAX_RESULTS = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class LookupResult:
    """The `result` of one looked-up lead, or proof that it is `absent`, or neither."""

    result: Mapping[str, Any] | None
    absent: bool

    @property
    def is_inconclusive(self) -> bool:
        """Whether the lookup proves nothing, as that of a vendor that answers 404."""
        return self.result is None and not self.absent


@dataclass(frozen=True, kw_only=True)
class ResultPage:
    """One page of results; `count` is the vendor's count for the whole query.

    `has_next` is true if the page links to a next one. The link itself is not kept.
    """

    count: int
    results: Sequence[Any]
    has_next: bool
    vendor_now: datetime | None


class LeadsApi:
    """The typed calls; each raises an ApiError, named by the next action of the caller."""

    def __init__(
        self,
        transport: Transport,
        tokens: TokenProvider,
        acquire_permit: AcquirePermit,
        retries: RequestRetries,
    ) -> None:
        self._transport = transport
        self._tokens = tokens
        self._acquire_permit = acquire_permit
        self._retries = retries
        self._make_error = partial(error_for_verdict, prefix=transport.setting_prefix)

    def for_probes(self) -> "LeadsApi":
        """Return the same API for probes, of which only quick failures are retried."""
        return LeadsApi(
            self._transport, self._tokens, self._acquire_permit, self._retries.for_probes()
        )

    def with_permits(self, acquire_permit: AcquirePermit) -> "LeadsApi":
        """Return the same API, whose requests get their permits elsewhere."""
        return LeadsApi(self._transport, self._tokens, acquire_permit, self._retries)

    def ensure_token(self) -> None:
        """Ensure a token that is valid for the next minute, so that a create need not wait for one.

        Raises:
            Retryable, RateLimited, Fatal: the login failed as often as it is retried.
        """
        self._tokens.fresh_token()

    def create(self, campaign_id: str, leads: Sequence[PreparedLead]) -> BatchResult:
        """Create a batch of leads: `POST /api/v1/leads/create/{campaign_id}/`.

        The caller ensures a token and acquires the permit before it selects the leads, because a
        lead that opts out during either wait must not be sent. For the same reason the cached token
        is used as it is, which may mean a 401, and the leads are not sent a second time after it.

        Raises:
            InDoubt, Rejected, TooLarge, Retryable, RateLimited, Fatal: see leadloop.client.errors.
        """
        content = b"[" + b",".join(lead.body for lead in leads) + b"]"
        path = f"/api/v1/leads/create/{quote(campaign_id, safe='')}/"
        with self._retries.report_pause(ApiCall.CREATE):
            token = self._tokens.cached_token()
            received = self._transport.send("POST", path, token=token, content=content)
            verdict = classify_response(ApiCall.CREATE, received.response)
            if verdict is Verdict.UNAUTHORIZED and self._tokens.renew(token):
                verdict = Verdict.RETRY
            by_id = {lead.lead_id: lead for lead in leads}
            return _parse_response(
                ApiCall.CREATE,
                received.response,
                verdict,
                by_id,
                lambda key: by_id[key].custom_keys(),
                self._make_error,
            )

    def disable(
        self, campaign_id: str, lead_ids: Sequence[str], *, numeric_ids: bool = False
    ) -> BatchResult:
        """Disable a batch of leads: `POST /api/v1/leads/disable/{campaign_id}/`.

        Idempotent, but sent once: the caller retries it, with requests of others in between.
        `numeric_ids`: ids that are whole numbers are sent as JSON numbers.

        Raises:
            Rejected, TooLarge, Retryable, RateLimited, Fatal: see leadloop.client.errors.
        """
        ids = [write_lead_id(lead_id, as_number=numeric_ids) for lead_id in lead_ids]
        content = dump_json([{"lead_id": lead_id} for lead_id in ids]).encode()
        path = f"/api/v1/leads/disable/{quote(campaign_id, safe='')}/"
        with self._retries.report_pause(ApiCall.DISABLE):
            received, verdict = self._send_idempotent(
                ApiCall.DISABLE, "POST", path, content=content
            )
            return _parse_response(
                ApiCall.DISABLE,
                received.response,
                verdict,
                lead_ids,
                lambda _: (),
                self._make_error,
            )

    def list_processed(
        self, campaign_id: str, window: Window, *, unit: EpochUnit, page: int, page_size: int
    ) -> ResultPage:
        """Read one page of the results processed in a window (pagination by page number).

        The vendor's `next` link is never followed: it lacks the filters and uses plain http. A page
        beyond the last, which may be a 404, is returned empty.

        Raises:
            Retryable, RateLimited, Fatal: the last failure of the page, which was retried.
        """
        after, before = query_bounds(window, unit)
        params = {
            "processed_after": str(after),
            "processed_before": str(before),
            "page": str(page),
            "page_size": str(page_size),
        }
        return self._read_page_or_end(campaign_id, params)

    def list_all(
        self, campaign_id: str, *, page: int, page_size: int, lead_id: str | None = None
    ) -> ResultPage:
        """Read one page of the full listing of a campaign, or of one lead's rows.

        The vendor decides whether unprocessed leads are listed. A page beyond the last, which may
        be a 404, is returned empty.

        Raises:
            Retryable, RateLimited, Fatal: the last failure of the page, which was retried.
        """
        params = {"page": str(page), "page_size": str(page_size)}
        return self._read_page_or_end(
            campaign_id, params | ({"lead_id": lead_id} if lead_id else {})
        )

    def look_up(self, campaign_id: str, lead_id: str) -> LookupResult:
        """Look up one lead, processed or not.

        Only an empty page with a count of 0 proves absence. A 404 may come from any server, a page
        of other leads from one that ignores the parameter (or the campaign), and an empty page with
        a count above 0 from rows that have just moved.

        Raises:
            Retryable, RateLimited, Fatal: the last failure of the lookup, which was retried.
        """
        page = self._read_unless_404(campaign_id, {"lead_id": lead_id})
        if page is None:
            return LookupResult(result=None, absent=False)
        for item in page.results:
            if (
                isinstance(item, dict)
                and parse_lead_id(item) == lead_id
                and not is_of_other_campaign(item, campaign_id)
            ):
                return LookupResult(result=item, absent=False)
        return LookupResult(result=None, absent=page.count == 0 and not page.results)

    def _read_page_or_end(self, campaign_id: str, params: Mapping[str, str]) -> ResultPage:
        if params["page"] == "1":
            request = partial(self._read_page, campaign_id, params)
            return self._retries.run(ApiCall.READ, request)
        page = self._read_unless_404(campaign_id, params)
        return page or ResultPage(count=0, results=(), has_next=False, vendor_now=None)

    def _read_unless_404(self, campaign_id: str, params: Mapping[str, str]) -> ResultPage | None:
        """Read a page with retries; return None for a 404, which is an answer and not retried."""

        def read() -> ResultPage | None:
            try:
                return self._read_page(campaign_id, params)
            except Fatal as error:
                if error.response.status == 404:
                    return None
                raise

        return self._retries.run(ApiCall.READ, read)

    def _read_page(self, campaign_id: str, params: Mapping[str, str]) -> ResultPage:
        """Read a page in one attempt."""
        path = f"/api/v1/leads/responses/{quote(campaign_id, safe='')}/"
        received, verdict = self._send_idempotent(ApiCall.READ, "GET", path, params=params)
        if verdict is not Verdict.ACCEPTED:
            raise self._make_error(verdict, ApiCall.READ, received.response)
        body = received.response.body
        if not (
            isinstance(body, dict)
            and isinstance(body.get("results"), list)
            and type(body.get("count")) is int
            and 0 <= body["count"] <= _MAX_RESULTS
        ):
            raise self._make_error(Verdict.RETRY, ApiCall.READ, received.response)
        # An empty page is the last one, whatever its link.
        return ResultPage(
            count=body["count"],
            results=body["results"],
            has_next=bool(body.get("next") and body["results"]),
            vendor_now=received.vendor_now,
        )

    def _send_idempotent(
        self,
        call: ApiCall,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> tuple[ReceivedResponse, Verdict]:
        """Send an idempotent request, and again after a 401 until its token is surely a new one.

        Another process's login may have ended the token. So the request is repeated in a turn in
        which no other process logs in.
        """

        def send(token: str) -> tuple[ReceivedResponse, Verdict]:
            return self._send_permitted(call, method, path, token, params, content)

        token = self._tokens.fresh_token()
        received, verdict = send(token)
        if verdict is Verdict.UNAUTHORIZED:
            with self._tokens.hold_turn():
                while verdict is Verdict.UNAUTHORIZED and self._tokens.renew(token):
                    token = self._tokens.fresh_token()
                    received, verdict = send(token)
        return received, verdict

    def _send_permitted(
        self,
        call: ApiCall,
        method: str,
        path: str,
        token: str,
        params: Mapping[str, str] | None,
        content: bytes | None,
    ) -> tuple[ReceivedResponse, Verdict]:
        self._acquire_permit(call)
        received = self._transport.send(method, path, token=token, params=params, content=content)
        return received, classify_response(call, received.response)


def _parse_response(
    call: ApiCall,
    response: ApiResponse,
    verdict: Verdict,
    sent: Collection[str],
    custom_keys: Callable[[str], Collection[str]],
    make_error: Callable[..., ApiError],
) -> BatchResult:
    """Parse the per-lead results of an accepted request.

    A create that is refused, with whatever status, and yet states that leads were created is in
    doubt: what was created of it must not be sent again.

    Raises:
        ApiError: the request was not accepted, or leads were rejected or may have been rejected
            without being named. Its `batch_result` holds the results of the named leads.
    """
    result = parse_batch_response(call, response.body, sent, custom_keys)
    if verdict is not Verdict.ACCEPTED and result.creates_some:
        verdict = AMBIGUOUS_VERDICTS[call]
    elif verdict not in (Verdict.ACCEPTED, Verdict.REJECTED):
        raise make_error(verdict, call, response)
    if verdict is Verdict.ACCEPTED and (result.ambiguous or result.shape is not None):
        verdict = AMBIGUOUS_VERDICTS[call]
    if verdict is not Verdict.ACCEPTED:
        raise make_error(verdict, call, response, result)
    return result
