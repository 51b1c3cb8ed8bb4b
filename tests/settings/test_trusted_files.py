"""Whose files are trusted: real files, owners and modes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leadloop.core.errors import UsageError
from leadloop.trusted_files import read_trusted, require_trusted

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")

_US = os.geteuid()
_OTHER, _THIRD = 65_534, 54_321

# Python may lie where only root gets to: so another user takes over once everything is imported.
_AS_OTHER = f"""
import grp, os, pwd, sys
from pathlib import Path
from leadloop.core.errors import UsageError
from leadloop.trusted_files import require_trusted
os.chdir(sys.argv[1])
os.setgroups([])
os.setgid({_OTHER})
os.setuid({_OTHER})
try:
    require_trusted(Path(".env"))
except UsageError as error:
    print(error)
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of ours in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".env"
    path.touch()
    path.chmod(0o600)
    return path


def _refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        require_trusted(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o400])
def test_a_file_of_ours(file: Path, mode: int) -> None:
    """It is trusted, whoever may read it; so is one that is not there."""
    file.chmod(mode)
    require_trusted(file)
    require_trusted(file.with_name("absent"))


@pytest.mark.parametrize("mode", [0o666, 0o602, 0o777])
def test_a_file_that_everybody_may_write(file: Path, mode: int) -> None:
    """The line says so, with the mode and the command that changes it."""
    file.chmod(mode)
    message = _refused(file)
    assert f"{file} may be written by everybody (mode {mode:04o})" in message
    assert "`chmod go-w`" in message


def test_a_directory_that_everybody_may_write(file: Path) -> None:
    """So does a sticky bit help nothing: what is in it may be planted."""
    directory = file.with_name(".leadloop")
    directory.mkdir()
    directory.chmod(0o1777)
    assert "everybody (mode 1777)" in _refused(directory)


@as_root
def test_a_group_of_its_owners_own(file: Path) -> None:
    """With umask 002 everything may be written by the group, which has one member."""
    file.chmod(0o664)
    require_trusted(file)
    os.chown(file, 0, _THIRD)
    assert f"may be written by the group {_THIRD} (mode 0664)" in _refused(file)
    file.chmod(0o644)
    require_trusted(file)


@as_root
def test_a_group_of_the_owners_name(file: Path) -> None:
    """The ids of a user and of the group that is theirs may differ."""
    import grp
    import pwd

    names = {group.gr_name: group.gr_gid for group in grp.getgrall()}
    user = next(
        user
        for user in pwd.getpwall()
        if user.pw_name in names and names[user.pw_name] != user.pw_uid
    )
    os.chown(file.parent, user.pw_uid, 0)
    os.chown(file, user.pw_uid, names[user.pw_name])
    file.chmod(0o664)
    require_trusted(file)


@as_root
def test_a_group_of_the_owners_name_with_other_members(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was added to the group may write the file: it is refused."""
    import grp
    import pwd

    user = pwd.getpwnam("daemon")
    os.chown(file.parent, user.pw_uid, 0)
    os.chown(file, user.pw_uid, user.pw_gid)
    file.chmod(0o664)
    require_trusted(file)
    # The machine's own list of groups is not for a test to change.
    entry = grp.getgrgid(user.pw_gid)
    shared = grp.struct_group((entry.gr_name, "x", entry.gr_gid, [user.pw_name, "www-data"]))
    with monkeypatch.context() as patch:
        patch.setattr(grp, "getgrgid", lambda _: shared)
        assert "may be written by the group daemon" in _refused(file)
    other = pwd.struct_passwd(("second", "x", 4321, user.pw_gid, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [user, other])
    assert "may be written by the group daemon" in _refused(file)


@as_root
def test_a_file_that_is_replaced_after_the_check(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read is the file that was checked: its owner is that of the open file."""
    file.write_text("ours")
    assert read_trusted(file) == "ours"
    assert read_trusted(file.with_name("absent")) is None
    planted = file.with_name("planted")
    planted.write_text("theirs")
    os.chown(planted, _OTHER, _OTHER)
    open_file = Path.open

    def replace_and_open(path: Path, *args: Any, **more: Any) -> Any:
        if path == file:
            planted.rename(file)
        return open_file(path, *args, **more)

    monkeypatch.setattr(Path, "open", replace_and_open)
    with pytest.raises(UsageError, match="belongs to nobody"):
        read_trusted(file)


@as_root
def test_a_file_of_another_user(file: Path) -> None:
    """The line says whose it is, who we are, and the command that changes it."""
    os.chown(file, _OTHER, 0)
    message = _refused(file)
    assert f"{file} belongs to nobody (uid {_OTHER})" in message
    assert "runs as root (uid 0)" in message
    assert "`chown 0`" in message


@as_root
def test_root_trusts_the_owner_of_the_directory_it_works_in(file: Path) -> None:
    """A checkout mounted into a container belongs to a user outside; no third user is trusted."""
    for path in (file, file.parent):
        os.chown(path, _OTHER, _OTHER)
    require_trusted(file)
    os.chown(file, _THIRD, _THIRD)
    assert f"belongs to uid {_THIRD}" in _refused(file)


@as_root
def test_links(file: Path) -> None:
    """Both the link and what it points to must be trusted, also where it points to nothing yet."""
    link = file.with_name("prefect.toml")
    link.symlink_to(file)
    require_trusted(link)
    os.chown(file, _OTHER, 0)
    assert "`chown 0`" in _refused(link)
    os.chown(file, 0, 0)
    os.chown(link, _OTHER, 0, follow_symlinks=False)
    assert "`chown -h 0`" in _refused(link)
    file.unlink()
    assert "`chown -h 0`" in _refused(link)


@as_root
@pytest.mark.parametrize(("owner", "refused"), [(_OTHER, False), (0, False), (_THIRD, True)])
def test_another_user_than_root(file: Path, owner: int, refused: bool) -> None:
    """They trust themselves and root, but not the owner of the directory they work in."""
    file.parent.chmod(0o755)
    os.chown(file.parent, _THIRD, _THIRD)
    os.chown(file, owner, owner)
    said = subprocess.run(
        [sys.executable, "-c", _AS_OTHER, file.parent],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.startswith(f"{file} belongs to uid {_THIRD}") is refused
    assert bool(said) is refused
