"""Lookups of leads one by one, side by side: one that fails is inconclusive, and stops no other."""

import threading
from collections.abc import Callable, Sequence

from leadloop.client.api import LookupResult
from leadloop.client.errors import ApiError, Retryable
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.plurals import format_count
from leadloop.core.verdicts import ApiCall
from tasks.context import ApiContext, CampaignRun

#: Refusals without an answer between them, after which the vendor may refuse all lookups.
MAX_REFUSALS = 3
#: Seconds until a lead is looked up again whose lookup failed; the same for all if all are refused.
_RETRY_FAILED_S = 60.0


class LeadLookups:
    """The lookups of one run; thread-safe.

    A refusal is a response that another attempt does not change: a wrong login, a 403, a page. If
    the vendor refuses everybody, the lookups end, and none is sent for some time.

    Args:
        run: the campaign's run.
        find_probe: returns a lead that the vendor has, if any is known.
    """

    def __init__(self, run: CampaignRun[ApiContext], find_probe: Callable[[], str | None]) -> None:
        self._run = run
        self._find_probe = find_probe
        self._lock = threading.Lock()
        #: Whether the vendor has answered any lookup of this run.
        self.has_answer = False
        #: The last failure, of whatever kind.
        self.last_failure: ApiError | None = None
        # When the lookup of a lead failed, seconds of the boot clock; and when all were refused.
        self._failed_at: dict[str, float] = {}
        self._refused_at: float | None = None
        self._refusals = 0
        self._is_answered = False

    @property
    def are_refused(self) -> bool:
        """Whether the vendor has just refused lookups, whatever the lead."""
        return self._refused_at is not None and _is_recent(self._refused_at)

    def list_recently_failed(self) -> list[str]:
        """List the leads whose lookup has just failed."""
        return [lead_id for lead_id, failed_at in self._failed_at.items() if _is_recent(failed_at)]

    def look_up_all(self, lead_ids: Sequence[str]) -> dict[str, LookupResult | ApiError]:
        """Look leads up side by side; return the results of those that were tried.

        Raises:
            Retryable: the vendor answered none of them.
        """
        self._refusals, self._is_answered, self._refused_at = 0, False, None
        with self._run.context.open_threads() as pool:
            results = dict(zip(lead_ids, pool.map_in_order(self.look_up, lead_ids), strict=True))
        failures = [result for result in results.values() if isinstance(result, ApiError)]
        if failures and len(failures) == len(results) and isinstance(failures[-1], Retryable):
            raise failures[-1]
        if failures:
            self._run.warn(
                "%d of %s could not be looked up: %s",
                len(failures),
                format_count(len(results), "lead"),
                failures[-1],
            )
        return results

    def look_up(self, lead_id: str) -> LookupResult | ApiError:
        """Look a lead up; return the failure if there is one, also if all lookups are refused."""
        if self.are_refused and self.last_failure is not None:
            return self.last_failure
        try:
            result = self._run.context.api.look_up(self._run.campaign.campaign_id, lead_id)
        except ApiError as error:
            self._failed_at[lead_id] = read_boot_clock()
            self.record_failure(error)
            return error
        self.has_answer = self._is_answered = True
        return result

    def record_failure(self, error: ApiError) -> None:
        """Record a failed read, and whether the vendor refuses all of them.

        It does if it refuses the login; or if it has answered nothing between MAX_REFUSALS
        refusals, and refuses a lead too that it has.
        """
        with self._lock:
            if self.are_refused:
                return
            self.last_failure = error
            if isinstance(error, Retryable):
                return
            self._refusals += 1
            if error.call is ApiCall.LOGIN or (
                self._refusals >= MAX_REFUSALS and not self._is_answered and not self._find_answer()
            ):
                self._refused_at = read_boot_clock()

    def _find_answer(self) -> bool:
        """Return whether the vendor answers the lookup of a lead that it has."""
        probe_lead = self._find_probe()
        if probe_lead is None:
            return False
        try:
            self._run.context.api.look_up(self._run.campaign.campaign_id, probe_lead)
        except ApiError:
            return False
        self.has_answer = self._is_answered = True
        return True


def _is_recent(moment: float) -> bool:
    return read_boot_clock() - moment < _RETRY_FAILED_S
