"""The machine's clock for waits: seconds since it booted."""

import time

# CLOCK_BOOTTIME goes on while the machine sleeps, which CLOCK_MONOTONIC does not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def read_boot_clock() -> float:
    """Return seconds of a clock that neither jumps nor stops."""
    return time.clock_gettime(_CLOCK)


def sleep_until(due_at: float) -> None:
    """Sleep until a time of `read_boot_clock`."""
    time.sleep(max(0.0, due_at - read_boot_clock()))
