"""Whether the vendor answers a live run at all: while it does not, one read at a time asks."""

import math
from collections.abc import Callable
from threading import Lock

from leadloop.client.errors import ApiError, RateLimited, Retryable
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.errors import RunError
from leadloop.core.live_schedule import FIRST_PAUSE_S, LONGEST_PAUSE_S
from tasks.context import Logger


class VendorWatch:
    """Finds out after a job that failed whether the vendor answers others; thread-safe.

    An outage is logged once when it begins and once when it ends.

    Args:
        log: where both are logged.
        address: the vendor's address, without a password.
    """

    def __init__(self, log: Logger, address: str) -> None:
        self._log = log
        self._address = address
        self._lock = Lock()
        self._out_since: float | None = None
        self._probe_at = 0.0
        self._pause_s = 0.0

    @property
    def is_out(self) -> bool:
        """Whether the vendor answered neither a job nor the last probe."""
        return self._out_since is not None

    @property
    def next_probe_at(self) -> float:
        """When the next probe is due, seconds of the boot clock; infinity while it answers."""
        return self._probe_at if self.is_out else math.inf

    def probe(self, read: Callable[[], object]) -> bool:
        """Send a harmless read; return whether the vendor answers, in whatever way.

        Args:
            read: sends it, and raises an ApiError.
        """
        with self._lock:
            try:
                read()
            except (Retryable, RateLimited) as error:
                self._record_silence(error)
                return False
            except RunError:
                # The live run is being stopped.
                return not self.is_out
            except ApiError:
                # It answers; what it does not like concerns the job that failed.
                pass
            self._record_answer()
            return True

    def _record_silence(self, error: ApiError) -> None:
        now = read_boot_clock()
        if self._out_since is None:
            self._out_since, self._pause_s = now, FIRST_PAUSE_S / 2
            self._log.warning(
                "%s does not answer (%s): until it does, nothing else is sent to it than a read,"
                " at first after a second, then ever more seldom, at least once a minute",
                *(self._address, error),
            )
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._probe_at = now + self._pause_s

    def _record_answer(self) -> None:
        if self._out_since is not None:
            out_s = read_boot_clock() - self._out_since
            self._out_since = None
            self._log.info("%s answers again, after %.0f s", self._address, out_s)
