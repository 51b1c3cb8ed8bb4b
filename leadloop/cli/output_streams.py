"""Standard streams that end no command: a reader that went away, a full disk, a closed descriptor.

What a run did is in Postgres, and its exit code says how it ended, whoever listens.
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any


class _TolerantFile(io.FileIO):
    """A descriptor to write to; from the first failure on, what is written is let go."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write, or count it as written."""
        try:
            return super().write(data) if self.error is None else len(data)
        except OSError as error:
            self.error = error
            return len(data)


def install_tolerant_streams() -> Callable[[], str]:
    """Replace stdout and stderr by streams that never fail.

    Returns:
        A function that says why stdout was lost; nothing where it was not, or nobody reads it.
    """
    for descriptor in (0, 1, 2):
        # Else the next file that is opened gets the number, and our errors go into it.
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    out, err = _TolerantFile(1), _TolerantFile(2)
    sys.stdout, sys.stderr = _wrap_text(out, sys.stdout), _wrap_text(err, sys.stderr)

    def why_lost() -> str:
        sys.stdout.flush()
        unread = out.error is None or out.error.errno == errno.EPIPE
        return "" if unread or out.error is None else str(out.error.strerror)

    return why_lost


def _wrap_text(raw: _TolerantFile, before: Any) -> io.TextIOWrapper:
    encoding = before.encoding if before is not None else "utf-8"
    live = raw.fileno() == 2 or raw.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=live
    )
