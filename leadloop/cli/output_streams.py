"""Standard streams that never fail: the reader may go away, the disk fill up, a descriptor close.

The records of a run are in Postgres, and the exit code shows how the run ended, even if nobody
reads the output.
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any


class _TolerantFile(io.FileIO):
    """A writable descriptor; after the first failed write, it discards everything."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write the data, or discard it and report success."""
        try:
            return super().write(data) if self.error is None else len(data)
        except OSError as error:
            self.error = error
            return len(data)


def install_tolerant_streams() -> Callable[[], str]:
    """Replace stdout and stderr by streams that never fail.

    Returns:
        A function that describes why output on stdout was lost. It returns an empty text if none
        was lost, or if the reader has closed the pipe.
    """
    for descriptor in (0, 1, 2):
        # Otherwise the next file opened would get this number, and our errors would go into it.
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    out, err = _TolerantFile(1), _TolerantFile(2)
    sys.stdout, sys.stderr = _wrap_text(out, sys.stdout), _wrap_text(err, sys.stderr)

    def describe_lost_output() -> str:
        sys.stdout.flush()
        pipe_closed = out.error is not None and out.error.errno == errno.EPIPE
        return "" if pipe_closed or out.error is None else str(out.error.strerror)

    return describe_lost_output


def _wrap_text(raw: _TolerantFile, replaced: Any) -> io.TextIOWrapper:
    encoding = replaced.encoding if replaced is not None else "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=raw.fileno() == 2 or raw.isatty(),
    )
