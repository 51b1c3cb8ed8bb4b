"""Refuse files of the working directory that another user of the machine owns or may write.

A `.env` decides where the token is sent, and `prefect.toml` which server code runs. A user who can
put such a file into an operator's working directory would act as the operator.
"""

import grp
import os
import pwd
import stat
from collections.abc import Set
from pathlib import Path

from leadloop.core.errors import UsageError

_ROOT = 0
_ELSEWHERE = "or work in another directory"


def read_trusted(path: Path) -> str | None:
    """Return the text of a trusted file (see `require_trusted`); None if it is missing.

    The check uses owner and mode of the open file: a file swapped in between check and use is not
    read.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: the file is not UTF-8.
        UsageError: the file is not trusted.
    """
    require_trusted(path)
    try:
        file = path.open(encoding="utf-8")
    except FileNotFoundError:
        return None
    with file:
        _require_trusted_status(path, os.fstat(file.fileno()))
        return file.read()


def require_private_directory() -> None:
    """Refuse a working directory that another user owns or everybody may write.

    Prefect reads settings in the directory repeatedly, so one check of the files is not enough.
    Root may work in any user's directory and then trusts that user's files. A group that shares the
    directory is trusted not to race with us.

    Raises:
        UsageError: another user owns the directory, or everybody may write it.
    """
    here = Path().absolute()
    status = here.stat()
    if status.st_uid not in _trusted_owners():
        who = f"belongs to {describe_user(status.st_uid)}"
    elif status.st_mode & stat.S_IWOTH:
        who = f"may be written by everybody (mode {stat.S_IMODE(status.st_mode):04o})"
    else:
        return
    raise UsageError(f"{here} {who}, who could add settings there: run this in your own directory")


def require_trusted(path: Path) -> None:
    """Refuse a file or directory that anyone but us, root and its owner's own group may change.

    Applies to a symbolic link and its target alike. A missing file is trusted.

    Raises:
        UsageError: the file is not trusted; one line with the reason and the remedy.
    """
    try:
        link, target = path.lstat(), path.stat()
    except FileNotFoundError:
        # A dangling link is harmless now, but another user may still create its target.
        if path.is_symlink():
            _require_trusted_owner(path, path.lstat())
        return
    except OSError as error:
        raise UsageError(f"{path} cannot be inspected: {error.strerror}") from None
    _require_trusted_owner(path, link)
    _require_trusted_status(path, target)


def _require_trusted_status(path: Path, status: os.stat_result) -> None:
    _require_trusted_owner(path, status)
    if status.st_mode & stat.S_IWOTH:
        writers, bits = "everybody", "go-w"
    elif status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_uid, status.st_gid):
        writers, bits = f"the group {_group_name(status.st_gid) or status.st_gid}", "g-w"
    else:
        return
    mode = stat.S_IMODE(status.st_mode)
    raise UsageError(
        f"{path.absolute()} may be written by {writers} (mode {mode:04o}): if you trust its"
        f" content, `chmod {bits}` it, {_ELSEWHERE}"
    )


def _require_trusted_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in _trusted_owners():
        us = os.geteuid()
        chown = "chown -h" if stat.S_ISLNK(status.st_mode) else "chown"
        raise UsageError(
            f"{path.absolute()} belongs to {describe_user(status.st_uid)}, and leadloop runs as"
            f" {describe_user(us)}: if you trust its content, `{chown} {us}` it, {_ELSEWHERE}"
        )


def _trusted_owners() -> Set[int]:
    """Return the ids of root and of us; for root also that of the working directory's owner.

    Containers run as root on mounted checkouts, whose files belong to the user outside. That user
    owns the directory in which root chose to work.
    """
    us = os.geteuid()
    return {_ROOT, us, Path().stat().st_uid} if us == _ROOT else {_ROOT, us}


def _is_own_group(uid: int, gid: int) -> bool:
    """Return whether a group is private to its user: same name as the user, no other members.

    Private groups are common where umask 002 is usual. For ids that the machine does not know, the
    id counts as the name.
    """
    name = _user_name(uid)
    if uid != gid and (name is None or name != _group_name(gid)):
        return False
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        members = set()
    return members <= {name} and all(
        user.pw_uid == uid for user in pwd.getpwall() if user.pw_gid == gid
    )


def describe_user(uid: int) -> str:
    """Return a user's name and id."""
    name = _user_name(uid)
    return f"uid {uid}" if name is None else f"{name} (uid {uid})"


def _user_name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _group_name(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None
