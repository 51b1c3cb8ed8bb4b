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
    _require_trusted_owner(path, target)
    _require_not_writable(path, target)


def _require_trusted_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in _trusted_owners():
        us = os.geteuid()
        chown = "chown -h" if stat.S_ISLNK(status.st_mode) else "chown"
        raise UsageError(
            f"{path.absolute()} belongs to {_user(status.st_uid)}, and leadloop runs as"
            f" {_user(us)}: if you trust what is in it, `{chown} {us}` it, {_ELSEWHERE}"
        )


def _trusted_owners() -> Set[int]:
    """Return the ids of root and of us; for root also that of the working directory's owner.

    Containers run as root on checkouts that are mounted from outside, where everything belongs to
    the user outside. That user owns the directory that root chose to work in.
    """
    us = os.geteuid()
    return {_ROOT, us, Path().stat().st_uid} if us == _ROOT else {_ROOT, us}


def _require_not_writable(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IWOTH:
        who, bits = "everybody", "go-w"
    elif mode & stat.S_IWGRP and not _is_own_group(status.st_uid, status.st_gid):
        who, bits = f"the group {_group_name(status.st_gid) or status.st_gid}", "g-w"
    else:
        return
    raise UsageError(
        f"{path.absolute()} may be written by {who} (mode {mode:04o}): if you trust what is in it,"
        f" `chmod {bits}` it, {_ELSEWHERE}"
    )


def _is_own_group(uid: int, gid: int) -> bool:
    """Return whether a group is its user's alone by custom: the same id, or the same name.

    So it is where every user has a group of their own, and umask 002 is usual.
    """
    return uid == gid or (_user_name(uid) is not None and _user_name(uid) == _group_name(gid))


def _user(uid: int) -> str:
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
