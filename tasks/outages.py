"""Outages: whether a request fails alone, or the vendor answers no request at all."""

import random
import threading
from collections.abc import Callable

from leadloop.client.errors import ApiError, RateLimited, Retryable
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.errors import RunError
from leadloop.core.verdicts import TransportFailure

#: Without one success for this time, seconds, the vendor counts as out of order: the job ends.
OUTAGE_S = 45.0
#: A success so recent, seconds, shows that the vendor answers.
_RECENT_S = 10.0
#: Seconds before each probe after a failed one; the last one repeats.
_PAUSES_S = (1.0, 2.0, 4.0, 8.0)


class OutageWatch:
    """Watches whether the vendor answers the requests of one job; thread-safe.

    Args:
        probe: a harmless request that depends on none of the items that may fail: a read, or a
            disable that the vendor has confirmed before.
        sleep: sleeps for seconds; raises RunError where the run is stopped.
        address: the vendor's address, for the message.
        url_variable: the variable that sets it, for the message.
        on_silence: called with a message and its arguments before the waits for an answer.
    """

    def __init__(
        self,
        probe: Callable[[], object],
        sleep: Callable[[float], None],
        address: str,
        url_variable: str,
        on_silence: Callable[..., None] = lambda *_: None,
    ) -> None:
        self._probe = probe
        self._sleep = sleep
        self._address = address
        self._url_variable = url_variable
        self._on_silence = on_silence
        self._lock = threading.Lock()
        self._answered_at: float | None = None
        self._outage_ended_at: float | None = None
        # Why the vendor counts as out of order, once it does: the job ends with it.
        self._verdict: str | None = None

    def record_success(self) -> None:
        """Record that a request succeeded."""
        self._answered_at = read_boot_clock()

    def probe_after_failure(self, error: ApiError) -> bool:
        """Return whether a request failed alone: the vendor has just answered, or answers a probe.

        One thread probes for all that ask meanwhile: they share its verdict, and a failure from
        before an outage's end is no failure of the request alone.

        Args:
            error: how the request failed, as often as its retries allow.

        Returns:
            True: the request itself is the reason. False: there was an outage, and it is over, or
            the vendor asks for a pause, so the failure is inconclusive and the request may be sent
            again.

        Raises:
            RunError: nothing was answered for OUTAGE_S, and the outage goes on.
            ApiError: the probe is rejected, so the vendor rejects more than the request.
        """
        failed_at = read_boot_clock()
        with self._lock:
            if self._outage_ended_at is not None and failed_at < self._outage_ended_at:
                return False
            # An answer before a pause shows nothing about the requests after it.
            if self._has_answered_recently() and not isinstance(error, RateLimited):
                return True
            return self._probe_until_answered(error)

    def probe_now(self) -> bool:
        """Probe at once, even if the vendor has just answered.

        Result and errors are those of `probe_after_failure`.
        """
        with self._lock:
            return self._probe_until_answered()

    def _has_answered_recently(self) -> bool:
        now = read_boot_clock()
        return self._answered_at is not None and now - self._answered_at < _RECENT_S

    def _probe_until_answered(self, failed: ApiError | None = None) -> bool:
        if self._verdict is not None:
            raise RunError(self._verdict)
        # The time of probing alone: waits for permits and turns of other campaigns are no silence.
        since = read_boot_clock()
        failures = 0
        while True:
            try:
                self._probe()
            except RateLimited:
                # The vendor answers, and the next permit waits for the end of its pause.
                return False
            except Retryable as error:
                silent_s = read_boot_clock() - since
                if failed is not None and _hangs_alike(error, failed):
                    silent_s += failed.took_s
                if silent_s >= OUTAGE_S:
                    self._verdict = (
                        f"{self._address} has answered no request for {silent_s:.0f} s ({error}):"
                        f" check {self._url_variable}, the network and the vendor's status; the"
                        " next run goes on where this one stopped"
                    )
                    raise RunError(self._verdict) from None
                if not failures:
                    self._on_silence(
                        "%s does not answer (%s): trying again for up to %.0f s",
                        *(self._address, error, OUTAGE_S - silent_s),
                    )
            else:
                self.record_success()
                if failures:
                    self._outage_ended_at = read_boot_clock()
                return failures == 0
            pause_s = _PAUSES_S[min(failures, len(_PAUSES_S) - 1)] * random.uniform(0.5, 1.5)
            failures += 1
            # The last probe begins no later than the silence counts as an outage.
            self._sleep(min(pause_s, OUTAGE_S - silent_s))


def _hangs_alike(probe: ApiError, failed: ApiError) -> bool:
    """Return whether a probe was not answered for about as long as an attempt of the request.

    Then all of it is one silence. A quick failure of the probe, which may be by chance, adds no
    more than itself to the time of a request that hangs alone.
    """
    is_silence = all(
        each.response.failure is TransportFailure.NO_RESPONSE for each in (probe, failed)
    )
    return is_silence and probe.took_s / probe.attempts >= failed.took_s / failed.attempts / 2
