"""Refuse files of the working directory that another user of the machine owns or may write.

A `.env` decides where the token is sent, and `prefect.toml` which server code comes from. Whoever
can put such a file into a directory in which an operator works would act as the operator.
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
    """Return the text of a file that is trusted as `require_trusted` says; None if it is missing.

    The owner and the mode are those of the open file: another one that is put in its place between
    check and use is not read.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
        UsageError: it is not trusted.
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
    """Refuse a working directory in which everybody may put files, or that another user owns.

    Prefect looks there for settings again and again, so a check of the files themselves would not
    last. Root may work in a directory of any user, whose files it then trusts; a group that shares
    the directory is trusted not to race with us.

    Raises:
        UsageError: others own the directory or may write it.
    """
    here = Path().absolute()
    status = here.stat()
    if status.st_uid not in _trusted_owners():
        who = f"belongs to {describe_user(status.st_uid)}"
    elif status.st_mode & stat.S_IWOTH:
        who = f"may be written by everybody (mode {stat.S_IMODE(status.st_mode):04o})"
    else:
        return
    raise UsageError(
        f"{here} {who}, who could put settings there for you: run this in a directory of your own"
    )


def require_trusted(path: Path) -> None:
    """Refuse a file or directory that others than we, root and its owner's own group may change.

    A symbolic link and what it points to are judged alike. What does not exist is trusted.

    Raises:
        UsageError: it is not trusted; one line says why and what to do.
    """
    try:
        link, target = path.lstat(), path.stat()
    except FileNotFoundError:
        # A link to nothing is harmless now; another user may still make what it points to.
        if path.is_symlink():
            _require_trusted_owner(path, path.lstat())
        return
    except OSError as error:
        raise UsageError(f"{path} cannot be looked at: {error.strerror}") from None
    _require_trusted_owner(path, link)
    _require_trusted_status(path, target)


def _require_trusted_status(path: Path, status: os.stat_result) -> None:
    _require_trusted_owner(path, status)
    _require_not_writable(path, status)


def _require_trusted_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in _trusted_owners():
        us = os.geteuid()
        chown = "chown -h" if stat.S_ISLNK(status.st_mode) else "chown"
        raise UsageError(
            f"{path.absolute()} belongs to {describe_user(status.st_uid)}, and leadloop runs as"
            f" {describe_user(us)}: if you trust what is in it, `{chown} {us}` it, {_ELSEWHERE}"
        )


def _trusted_owners() -> Set[int]:
    """Return the ids of root and of us; for root also that of the working directory's owner.

    Containers run as root on checkouts that are mounted from outside, where everything belongs to
    the user outside. That user owns the directory that root chose to work in.
    """
    us = os.geteuid()
    return {_ROOT, us, Path().stat().st_uid} if us == _ROOT else {_ROOT, us}


def _require_not_writable(path: Path, status: os.stat_result) -> None:
    writers = _writers(status)
    if writers is not None:
        mode = stat.S_IMODE(status.st_mode)
        bits = "go-w" if mode & stat.S_IWOTH else "g-w"
        raise UsageError(
            f"{path.absolute()} may be written by {writers} (mode {mode:04o}): if you trust what is"
            f" in it, `chmod {bits}` it, {_ELSEWHERE}"
        )


def _writers(status: os.stat_result) -> str | None:
    """Say who may write a file beside its owner; None: nobody else."""
    if status.st_mode & stat.S_IWOTH:
        return "everybody"
    if status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_uid, status.st_gid):
        return f"the group {_group_name(status.st_gid) or status.st_gid}"
    return None


def _is_own_group(uid: int, gid: int) -> bool:
    """Return whether a group is its user's alone: named like the user, and without other members.

    So it is where every user has a group of their own, and umask 002 is usual. The id counts as a
    name, for ids that the machine does not know.
    """
    name = _user_name(uid)
    if uid != gid and (name is None or name != _group_name(gid)):
        return False
    return _members(gid) <= {name} and all(
        user.pw_uid == uid for user in pwd.getpwall() if user.pw_gid == gid
    )


def _members(gid: int) -> Set[str]:
    try:
        return set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        return set()


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
