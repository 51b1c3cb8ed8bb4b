"""Binaries and data of the embedded Postgres in `/var/lib/leadloop`, if root starts it.

Postgres refuses to run as root, so another user runs it, and that user may enter neither root's
home nor most checkouts. Every folder above the data belongs to root and lets everybody pass:

    lock                        exclusive: held for every change below
    binaries/VERSION/           copy of the package's binaries
    clusters/NAME/home.json     the `.leadloop/pg` directory that the data belong to
    clusters/NAME/in-use.lock   held by the Postgres that runs on the data
    clusters/NAME/data/         the data, 0700, owned by the user that runs Postgres

`data-location.json` in the `.leadloop/pg` directory names the folder. A start removes no data: a
missing directory may be unmounted, or belong to another container that shares the store.
`list_orphans` finds such data for a person to decide.
"""

import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leadloop.core.errors import UsageError
from leadloop.local.private_files import write_private

STORE = Path("/var/lib/leadloop")
#: The file in the `.leadloop/pg` directory that names the place of the data.
NOTE = "data-location.json"
_RECORD = "home.json"
_LOCK = "in-use.lock"
_ROOT = (0, 0)


def copy_binaries(site_packages: Path, names: Sequence[str], version: str) -> Path:
    """Copy the installed `names` unless the store has this version; return their folder.

    Raises:
        OSError: a file cannot be copied.
        UsageError: a folder on the way belongs to another user.
    """
    with _locked_store():
        copy = _make_folder(STORE / "binaries") / version
        if not copy.exists():
            new = copy.with_name(f"{version}.new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            for name in names:
                if (site_packages / name).exists():
                    _copy_tree(site_packages / name, new / name, _ROOT)
            _open_to_all(new)
            os.sync()
            new.rename(copy)
        return copy


def claim_folder(home: Path) -> Path:
    """Return the folder for the data of the `.leadloop/pg` directory `home`, made if missing.

    The data follow a directory that was moved on its file system. A copy of a directory starts
    without data.

    Raises:
        OSError: a file cannot be written.
        UsageError: the data are gone, may belong to another directory than `home`, or a folder on
            the way belongs to another user.
    """
    with _locked_store():
        clusters = _make_folder(STORE / "clusters")
        folder = _read_note(home)
        if folder is not None and not folder.exists():
            raise UsageError(
                f"The data of the embedded Postgres were in {folder}, which does not exist (another"
                f" machine or container?). Restore it, or remove {home / NOTE} to start without"
                " data."
            )
        if folder is None or not _belongs_to(folder, home):
            folder = _make_folder(clusters / secrets.token_hex(8))
        # The same record on both sides: in the folder and, as the note, in `home`.
        fields = {
            "about": "Root ran the embedded Postgres here, so its data are elsewhere: see `data`.",
            "data": str(folder / "data"),
            "home": str(home),
            "inode": home.stat().st_ino,
        }
        text = json.dumps(fields, indent=1)
        write_private(folder / _RECORD, text)
        write_private(home / NOTE, text)
        return folder


def lock_data(folder: Path) -> int:
    """Lock the data of `folder` for the Postgres that will run on them; return the descriptor.

    The lock also holds against other containers that share the store, whose processes are
    invisible here.

    Raises:
        OSError: the lock cannot be opened.
        UsageError: a Postgres runs on the data.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(folder / _LOCK, flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise UsageError(
            f"A Postgres already runs on the data in {folder}, perhaps in another container: wait"
            " until it has ended, or set LEADLOOP_DATABASE_URL to another Postgres."
        ) from None
    return lock


@dataclass(frozen=True, kw_only=True)
class OrphanedData:
    """Data whose `.leadloop/pg` directory cannot be found, and their size in bytes."""

    folder: Path
    home: Path
    size: int


def list_orphans() -> list[OrphanedData]:
    """Find unused data whose directory is missing, unmounted or has other data.

    Raises:
        OSError: the store cannot be read.
        UsageError: the store belongs to another user.
    """
    if not STORE.exists():
        return []
    # Under the lock neither records nor notes change.
    with _locked_store():
        folders = [record.parent for record in sorted(STORE.glob(f"clusters/*/{_RECORD}"))]
        return [
            OrphanedData(
                folder=folder,
                home=home,
                size=sum(path.lstat().st_size for path in folder.rglob("*")),
            )
            for folder in folders
            if (home := _recorded_home(folder)) is not None
            # In this order: the test for use takes the data's lock for a moment.
            and not _note_names(home, folder)
            and not _is_in_use(folder)
        ]


def _is_in_use(folder: Path) -> bool:
    if not (folder / _LOCK).exists():
        return False
    try:
        os.close(lock_data(folder))
    except UsageError:
        return True
    return False


def remove_temporary(place: Path) -> None:
    """Remove the data of all directories below `place`, the caller's own temporary directory.

    Raises:
        OSError: a folder cannot be removed.
        UsageError: the store belongs to another user.
    """
    if os.geteuid() != 0 or not STORE.exists():
        return  # only root has data in the store
    with _locked_store():
        for record in STORE.glob(f"clusters/*/{_RECORD}"):
            home = _recorded_home(record.parent)
            if home is not None and home.is_relative_to(place.resolve()):
                shutil.rmtree(record.parent)


def move_data(old: Path, new: Path, user: tuple[int, int]) -> None:
    """Move a data directory, if `old` exists. Idempotent: repeat an interrupted call.

    Across file systems the data are copied to `new`.moving. Once the copy is complete on disk,
    `old` becomes `old`.moved, the copy becomes `new`, and `old`.moved is removed.

    Raises:
        OSError: the data cannot be moved; `old` is still complete.
    """
    moving, moved = new.with_name("data.moving"), old.with_name("data.moved")
    if old.exists():
        try:
            old.rename(new)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.rmtree(moving, ignore_errors=True)
            _copy_tree(old, moving, user)
            os.sync()
            old.rename(moved)
    if moved.exists() and not new.exists():
        moving.rename(new)
    shutil.rmtree(moved, ignore_errors=True)


@contextmanager
def _locked_store() -> Iterator[None]:
    """Hold the store's lock, which only root can open."""
    _make_folder(STORE)
    lock = os.open(STORE / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _make_folder(path: Path) -> Path:
    """Make a folder that only root may list and change, and that everybody may pass through."""
    path.mkdir(parents=True, exist_ok=True)
    for status in (path.lstat(), path.stat()):
        if status.st_uid != 0:
            raise UsageError(
                f"The embedded Postgres cannot use {path}: it belongs to the user with id"
                f" {status.st_uid}, not to root. Move it away, or set LEADLOOP_DATABASE_URL to"
                " another Postgres."
            )
    path.chmod(0o711)  # whatever the umask is
    return path


def _copy_tree(source: Path, target: Path, owner: tuple[int, int]) -> None:
    """Copy folders, files and symbolic links with their modes; stop at the first error."""
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_dir():
        target.mkdir(mode=0o700)
        for entry in source.iterdir():
            _copy_tree(entry, target / entry.name, owner)
    else:
        shutil.copyfile(source, target, follow_symlinks=False)
    os.chown(target, *owner, follow_symlinks=False)
    if not target.is_symlink():
        target.chmod(stat.S_IMODE(source.stat().st_mode))


def _open_to_all(tree: Path) -> None:
    """Let everybody read a tree, and run what its owner may run (`chmod -R a+rX`)."""
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(stat.S_IMODE(mode) | 0o444 | (0o111 if mode & stat.S_IXUSR else 0))


def _read_note(home: Path) -> Path | None:
    """Return the folder that the note in `home` names; None if it is not a folder of the store.

    Raises:
        UsageError: the note is damaged.
    """
    try:
        data = Path(json.loads((home / NOTE).read_text())["data"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise UsageError(
            f"{home / NOTE} is damaged: it should name the place of the embedded Postgres's data."
            f" Remove it, and look for the data in {STORE / 'clusters'}."
        ) from None
    folder = data.parent
    return folder if folder.parent == STORE / "clusters" and folder.name != ".." else None


def _belongs_to(folder: Path, home: Path) -> bool:
    """Return whether the data that the note in `home` names are its own; False: `home` is a copy.

    Raises:
        UsageError: `home` may be a copy, or have been moved from a path that does not exist.
    """
    recorded = _recorded_home(folder)
    if recorded is None or recorded == home:
        return True
    if recorded.exists() and recorded.samefile(home):
        return True
    if _note_names(recorded, folder):
        return False
    if _read_record(folder).get("inode") == home.stat().st_ino:
        return True
    raise UsageError(
        f"{home / NOTE} names {folder}, the data of {recorded}, which does not exist: if it was"
        f" moved to {home}, remove {folder / _RECORD}; if {home} is a copy, remove the first of"
        " these files to start without data."
    )


def _note_names(home: Path, folder: Path) -> bool:
    """Return whether the note in `home` exists and names `folder`."""
    try:
        return _read_note(home) == folder
    except (OSError, UsageError):
        return False


def _read_record(folder: Path) -> dict[str, object]:
    try:
        record = json.loads((folder / _RECORD).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _recorded_home(folder: Path) -> Path | None:
    home = _read_record(folder).get("home")
    return Path(home) if isinstance(home, str) else None
