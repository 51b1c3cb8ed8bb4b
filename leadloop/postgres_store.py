"""Binaries and data of the embedded Postgres where root starts it: `/var/lib/leadloop`.

Postgres refuses to run as root, so another user runs it, who may enter neither root's home nor
most checkouts. Here every folder above the data belongs to root and lets everybody pass through:

    lock                          exclusive lock of whoever changes anything below
    binaries/VERSION/             copy of the package's binaries
    clusters/DIGEST/home.json     names the `.leadloop/pg` directory that the data belong to
    clusters/DIGEST/data/         the data, 0700, owned by the user that runs Postgres

`data-location.json` in the `.leadloop/pg` directory says where its data are. On one file system
both files are one inode: its link count shows whether a moved directory still needs the data.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from leadloop.core.errors import UsageError

STORE = Path("/var/lib/leadloop")
#: The file in the `.leadloop/pg` directory that says where the data are.
NOTE = "data-location.json"
_RECORD = "home.json"
_ROOT = (0, 0)


def copy_binaries(site_packages: Path, names: Sequence[str], version: str) -> Path:
    """Copy the installed `names` unless this version is there; return the folder that has them.

    Raises:
        OSError: it cannot be copied.
        UsageError: a folder on the way belongs to somebody else.
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
    """Return the folder for the data of the `.leadloop/pg` directory `home`, and record it there.

    The data follow a directory that was moved. A copy of a directory begins without data.

    Raises:
        OSError: a file cannot be written.
        UsageError: the data are gone, or a folder on the way belongs to somebody else.
    """
    with _locked_store():
        clusters = _make_folder(STORE / "clusters")
        folder = clusters / _digest(home)
        noted = _noted_folder(home)
        if noted is not None and noted != folder:
            folder = _folder_of_moved(home, noted, folder)
        if noted == folder and not folder.exists():
            raise _data_gone(home, noted)
        _make_folder(folder)
        _write_record(folder, home)
        return folder


def move_data(old: Path, new: Path, user: tuple[int, int]) -> None:
    """Move a data directory to another place. Repeat the call where it was interrupted.

    Across file systems the data are copied to `new`.moving. Once that is complete on disk, `old`
    becomes `old`.moved, the copy becomes `new`, and `old`.moved is removed.

    Raises:
        OSError: it cannot be moved; `old` is still whole.
    """
    moving, moved = new.with_name("data.moving"), old.with_name("data.moved")
    if old.exists() and not _renamed(old, new):
        shutil.rmtree(moving, ignore_errors=True)
        _copy_tree(old, moving, user)
        os.sync()
        old.rename(moved)
    if moved.exists() and not new.exists():
        moving.rename(new)
    shutil.rmtree(moved, ignore_errors=True)


def remove_orphans(home: Path) -> None:
    """Remove the data of every `.leadloop/pg` directory that no longer exists.

    Data stay where a server still uses them, where the file system of the directory is not mounted,
    and where the directory has only been moved: to `home`, or within one file system.

    Raises:
        OSError: the store cannot be used.
        UsageError: a folder on the way belongs to somebody else.
    """
    with _locked_store():
        ours = _noted_folder(home)
        for record in list(STORE.glob(f"clusters/*/{_RECORD}")):
            if record.parent != ours and _is_orphan(record):
                # The record goes last: it finds again what an interruption leaves.
                shutil.rmtree(record.parent / "data", ignore_errors=True)
                shutil.rmtree(record.parent, ignore_errors=True)


def runs_postgres(pid: str) -> bool:
    """Return whether a process of that number exists and is a Postgres, as far as /proc knows."""
    name = Path("/proc") / pid / "comm"
    return name.exists() and name.read_text().strip() == "postgres"


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
                f" {status.st_uid}, not to root. Move it away, or set LEADLOOP_DATABASE_URL to a"
                " Postgres of your own."
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


def _renamed(old: Path, new: Path) -> bool:
    """Rename a folder; return False where it is on another file system."""
    try:
        old.rename(new)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    return True


def _digest(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:16]


def _noted_folder(home: Path) -> Path | None:
    """Read which folder the note in `home` names; None where it names no folder of the store."""
    try:
        data = Path(json.loads((home / NOTE).read_text())["data"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise UsageError(
            f"{home / NOTE} is damaged: it should say where the embedded Postgres has its data."
            f" Remove it, and look at {STORE / 'clusters'} for them."
        ) from None
    return data.parent if data.parent.parent == STORE / "clusters" else None


def _folder_of_moved(home: Path, noted: Path, folder: Path) -> Path:
    """Find the data of a directory whose note names the folder of another path.

    The directory was moved (its data are renamed), is seen by a second path (a bind mount), or is a
    copy of one that is still there.
    """
    if not noted.exists():
        raise _data_gone(home, noted)
    recorded = _recorded_home(noted)
    if recorded is not None and recorded.exists():
        return noted if recorded.samefile(home) else folder
    if (folder / "data").exists():
        raise UsageError(
            f"There are two sets of data for {home}: {noted} and {folder}. Move one of them away."
        )
    shutil.rmtree(folder, ignore_errors=True)
    noted.rename(folder)
    return folder


def _data_gone(home: Path, folder: Path) -> UsageError:
    return UsageError(
        f"The data of the embedded Postgres were in {folder}, which is not there (another machine"
        f" or container?). Bring it back, or remove {home / NOTE} to begin without data."
    )


def _write_record(folder: Path, home: Path) -> None:
    """Write the record in `folder` and the note in `home`: one inode, where that is possible."""
    record, note = folder / _RECORD, home / NOTE
    if _recorded_home(folder) == home and _noted_folder(home) == folder:
        return
    text = json.dumps(
        {
            "about": "Root ran the embedded Postgres here, so its data are outside: see `data`.",
            "data": str(folder / "data"),
            "home": str(home),
            "mount": str(_mount_of(home)),
        },
        indent=1,
    )
    _write_whole(record, text)
    new = note.with_suffix(".new")
    new.unlink(missing_ok=True)
    try:
        new.hardlink_to(record)
    except OSError:
        new.write_text(text)
    new.replace(note)


def _write_whole(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def _recorded_home(folder: Path) -> Path | None:
    with suppress(FileNotFoundError, ValueError, KeyError):
        return Path(json.loads((folder / _RECORD).read_text())["home"])
    return None


def _is_orphan(record: Path) -> bool:
    """Return whether the recorded directory is gone: neither moved, unmounted nor in use."""
    if record.stat().st_nlink > 1 or _is_in_use(record.parent):
        return False
    try:
        recorded = json.loads(record.read_text())
        home, mount = Path(recorded["home"]), Path(recorded["mount"])
        return mount.is_mount() and _is_absent(home)
    except (OSError, ValueError, KeyError):
        return False


def _is_absent(path: Path) -> bool:
    """Return whether a path does not exist; raise where that cannot be seen."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def _mount_of(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.is_mount())


def _is_in_use(folder: Path) -> bool:
    pid_file = folder / "data" / "postmaster.pid"
    return pid_file.exists() and runs_postgres(pid_file.read_text().split("\n")[0])
