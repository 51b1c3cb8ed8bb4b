"""Files with mode 0600 in a directory that another user may own."""

import os
from pathlib import Path
from typing import IO


def open_private(path: Path) -> IO[str]:
    """Open a file for appending, created with mode 0600 if missing; refuse a symbolic link.

    Root may work in another user's directory, and a link would let that user choose the file.

    Raises:
        OSError: the file cannot be opened, or is a symbolic link (ELOOP).
    """
    return open(path, "a", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600))


def write_private(path: Path, text: str) -> None:
    """Write a file atomically, with mode 0600 from its creation on.

    Raises:
        OSError: the file cannot be written.
    """
    new = path.with_suffix(".new")
    # One that a killed process left behind would keep its mode.
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
