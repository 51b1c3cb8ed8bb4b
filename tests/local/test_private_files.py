import errno
import os
import stat
from pathlib import Path

import pytest

from leadloop.local.private_files import open_private, write_private


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """No other user reads a log or a password, whatever the umask is."""
    before = os.umask(0)
    try:
        with open_private(tmp_path / "log") as log:
            log.write("a")
        write_private(tmp_path / "password", "secret")
    finally:
        os.umask(before)
    assert (_mode(tmp_path / "log"), _mode(tmp_path / "password")) == (0o600, 0o600)
    assert (tmp_path / "password").read_text() == "secret"


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    """The owner of a directory cannot redirect what root writes there to another file."""
    target = tmp_path / "target"
    target.write_text("kept")
    (tmp_path / "log").symlink_to(target)
    (tmp_path / "password").symlink_to(target)
    with pytest.raises(OSError, match="Too many levels") as caught:
        open_private(tmp_path / "log")
    assert caught.value.errno == errno.ELOOP
    write_private(tmp_path / "password", "secret")
    assert target.read_text() == "kept"
    assert not (tmp_path / "password").is_symlink()


def test_an_open_leftover_of_a_killed_process(tmp_path: Path) -> None:
    """A secret does not inherit the mode of a file that an interrupted write left."""
    leftover = tmp_path / "password.new"
    leftover.touch()
    leftover.chmod(0o644)
    write_private(tmp_path / "password", "secret")
    assert _mode(tmp_path / "password") == 0o600
    assert not leftover.exists()
