"""The data of root's embedded Postgres in /var/lib/leadloop: where they are, and for how long."""

import os
import pwd
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from leadloop.cli import environment
from leadloop.core.errors import UsageError
from leadloop.local import postgres_data
from leadloop.local.postgres import run_postgres
from tests.conftest import Ran
from tests.local.conftest import StartUser, data_of

pytestmark = [
    pytest.mark.servers,
    pytest.mark.usefixtures("fast_initdb"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps data in /var/lib/leadloop"),
]

_NOBODY = pwd.getpwnam("nobody")
_PERSON = 54_321


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder that everybody may enter, on another file system than the store."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        Path(folder).chmod(0o755)
        if Path(folder).stat().st_dev == Path("/var/lib").stat().st_dev:
            pytest.skip("/dev/shm is not a file system of its own")
        yield Path(folder)
        postgres_data.remove_temporary(Path(folder))


def _store_word(directory: Path, word: str) -> None:
    with run_postgres(directory) as url:
        _execute(url, f"CREATE TABLE IF NOT EXISTS kept AS SELECT '{word}' AS word")


def _stored_word(directory: Path) -> object:
    with run_postgres(directory) as url:
        return _execute(url, "SELECT word FROM kept") if _execute(url, _HAS_TABLE) else None


_HAS_TABLE = "SELECT to_regclass('kept')"


def _execute(url: str, statement: str) -> object:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        engine.dispose()


def _move_as_earlier_versions(directory: Path) -> None:
    """Move the data to their place before the store existed: the directory, owned by nobody."""
    data = data_of(directory)
    shutil.copytree(data, directory / "data", symlinks=True)
    for path in [directory / "data", *(directory / "data").rglob("*")]:
        os.chown(path, _NOBODY.pw_uid, _NOBODY.pw_gid)
    shutil.rmtree(data.parent)
    (directory / postgres_data.NOTE).unlink()


def test_only_its_user_may_enter_the_data(tmp_path: Path) -> None:
    """The data are nobody's alone, every folder above is root's, and the program is the copy."""
    with run_postgres(tmp_path):
        data = data_of(tmp_path)
        pid = (data / "postmaster.pid").read_text().split("\n")[0]
        program = Path("/proc", pid, "exe").readlink()
        assert Path("/proc", pid).stat().st_uid == _NOBODY.pw_uid
    assert data.is_relative_to("/var/lib/leadloop")
    assert (data.stat().st_uid, stat.S_IMODE(data.stat().st_mode)) == (_NOBODY.pw_uid, 0o700)
    for folder in [*data.parents, *program.parents]:
        assert (folder.stat().st_uid, folder.stat().st_mode & 0o022) == (0, 0), folder
    assert not (tmp_path / "data").exists()


def test_data_of_an_earlier_version_are_moved(tmp_path: Path) -> None:
    """What was stored in `.leadloop/pg/data` is there after the upgrade, and only once."""
    _store_word(tmp_path, "before")
    _move_as_earlier_versions(tmp_path)
    assert _stored_word(tmp_path) == "before"
    assert not (tmp_path / "data").exists()


def test_data_on_another_file_system_are_moved(elsewhere: Path) -> None:
    """Data that have to be copied are complete too, and only once."""
    _store_word(elsewhere / "pg", "before")
    _move_as_earlier_versions(elsewhere / "pg")
    assert _stored_word(elsewhere / "pg") == "before"
    assert [path for path in (elsewhere / "pg").iterdir() if "data" in path.name] == [
        elsewhere / "pg" / postgres_data.NOTE
    ]


@pytest.mark.parametrize("interrupted_at", ["sync", "rename", "move", "rmtree"])
def test_an_interrupted_move_is_completed(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, interrupted_at: str
) -> None:
    """A move to another file system may be killed at any step: the next start completes it."""
    old, new = elsewhere / "data", tmp_path / "data"
    (old / "base").mkdir(parents=True)
    (old / "base" / "1").write_text("rows")

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    whole_rename = Path.rename

    def rename(path: Path, target: Path) -> Path:
        # The first try of a move is a rename, which another file system refuses.
        stops = {"rename": "data.moved", "move": "data"}.get(interrupted_at)
        if target.name == stops and path.parent == target.parent:
            raise KeyboardInterrupt
        return whole_rename(path, target)

    with monkeypatch.context() as patch:
        if interrupted_at == "sync":
            patch.setattr("os.sync", kill)
        patch.setattr(Path, "rename", rename)
        if interrupted_at == "rmtree":
            removed = shutil.rmtree
            patch.setattr(
                "shutil.rmtree",
                lambda path, **more: kill() if path.name == "data.moved" else removed(path, **more),
            )
        with pytest.raises(KeyboardInterrupt):
            postgres_data.move_data(old, new, (_NOBODY.pw_uid, _NOBODY.pw_gid))
    postgres_data.move_data(old, new, (_NOBODY.pw_uid, _NOBODY.pw_gid))
    assert (new / "base" / "1").read_text() == "rows"
    assert (new / "base" / "1").stat().st_uid == _NOBODY.pw_uid
    assert list(elsewhere.iterdir()) == []
    assert list(tmp_path.iterdir()) == [new]


def test_two_sets_of_data(tmp_path: Path) -> None:
    """If both places have data, both stay unchanged, and one line names both."""
    _store_word(tmp_path, "ours")
    data = data_of(tmp_path)
    shutil.copytree(data, tmp_path / "data")
    with pytest.raises(UsageError, match="two sets of data") as caught:
        run_postgres(tmp_path).__enter__()
    assert str(data) in str(caught.value)
    shutil.rmtree(tmp_path / "data")
    assert _stored_word(tmp_path) == "ours"


def test_a_persons_own_data_stay_with_them() -> None:
    """Root in somebody's checkout runs Postgres as that person, on the data where they are."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        directory = Path(folder, "pg")
        _store_word(directory, "mine")
        _move_as_earlier_versions(directory)
        for path in [directory, directory / "data", *(directory / "data").rglob("*")]:
            os.chown(path, _PERSON, _PERSON)
        with run_postgres(directory) as url:
            assert _execute(url, "SELECT word FROM kept") == "mine"
            pid = (directory / "data" / "postmaster.pid").read_text().split("\n")[0]
            assert Path("/proc", pid).stat().st_uid == _PERSON
        assert not (directory / postgres_data.NOTE).exists()
        postgres_data.remove_temporary(Path(folder))


def test_data_of_a_directory_that_is_not_there_stay(tmp_path: Path) -> None:
    """It may only be unmounted: starts elsewhere keep the data, and the directory finds them."""
    _store_word(tmp_path / "away", "kept")
    data = data_of(tmp_path / "away")
    (tmp_path / "away").rename(tmp_path / "unmounted")
    assert _stored_word(tmp_path / "other") is None
    orphans = [each for each in postgres_data.list_orphans() if each.folder == data.parent]
    assert [each.home for each in orphans] == [tmp_path / "away"]
    assert orphans[0].size > 1e6
    (tmp_path / "unmounted").rename(tmp_path / "away")
    assert _stored_word(tmp_path / "away") == "kept"
    assert not [each for each in postgres_data.list_orphans() if each.folder == data.parent]


def test_another_directory_at_the_same_path(tmp_path: Path) -> None:
    """A directory that is mounted over another one has separate data, and both stay."""
    _store_word(tmp_path / "pg", "below")
    (tmp_path / "pg").rename(tmp_path / "below")
    _store_word(tmp_path / "pg", "above")
    (tmp_path / "pg").rename(tmp_path / "above")
    (tmp_path / "below").rename(tmp_path / "pg")
    assert _stored_word(tmp_path / "pg") == "below"
    (tmp_path / "pg").rename(tmp_path / "below")
    (tmp_path / "above").rename(tmp_path / "pg")
    assert _stored_word(tmp_path / "pg") == "above"


def test_a_deleted_directory_starts_without_data(tmp_path: Path) -> None:
    """A person who deletes `.leadloop` starts again."""
    _store_word(tmp_path / "pg", "old")
    shutil.rmtree(tmp_path / "pg")
    assert _stored_word(tmp_path / "pg") is None


def test_doctor_names_data_without_a_directory(
    leadloop: Callable[..., Ran], environment: Path
) -> None:
    """With their size, their directory, and the command that removes them."""
    _store_word(environment / "pg", "old")
    folder = data_of(environment / "pg").parent
    shutil.rmtree(environment / "pg")
    checks = leadloop("doctor", "--json").last["checks"]
    (said,) = [check["detail"] for check in checks if str(folder) in check["detail"]]
    assert re.search(rf"holds \d+ MB of {environment}/pg, .*rm -r {folder}$", said)


def test_data_in_use_are_no_orphans(tmp_path: Path, start_user: StartUser) -> None:
    """No one is advised to remove the data of a running server, as of another container."""
    user = start_user("postgres", tmp_path / "pg")
    user.address()
    folder = data_of(tmp_path / "pg").parent
    (tmp_path / "pg").rename(tmp_path / "unseen")
    assert folder not in [orphan.folder for orphan in postgres_data.list_orphans()]
    (tmp_path / "unseen").rename(tmp_path / "pg")
    user.leave()
    (tmp_path / "pg").rename(tmp_path / "unseen")
    assert folder in [orphan.folder for orphan in postgres_data.list_orphans()]


def test_one_server_on_the_data(tmp_path: Path, start_user: StartUser) -> None:
    """Containers that share the store cannot see each other's processes: the second is refused."""
    user = start_user("postgres", tmp_path / "pg")
    user.address()
    data = data_of(tmp_path / "pg")
    # Another container has locks of its own in its own `.leadloop/pg`, and cannot see the pid.
    other = tmp_path / "container" / "pg"
    other.mkdir(parents=True)
    shutil.copy(tmp_path / "pg" / postgres_data.NOTE, other)
    (data.parent / "home.json").unlink()
    (data / "postmaster.pid").rename(tmp_path / "postmaster.pid")
    with pytest.raises(UsageError, match=f"already runs on the data in {data.parent}"):
        run_postgres(other).__enter__()
    (tmp_path / "postmaster.pid").rename(data / "postmaster.pid")
    user.leave()
    assert _stored_word(other) is None


@pytest.mark.parametrize("start_between", [False, True])
def test_data_follow_a_directory_that_was_moved(tmp_path: Path, start_between: bool) -> None:
    """After `mv` the data are still there, whether or not another server started meanwhile."""
    _store_word(tmp_path / "old", "mine")
    (tmp_path / "old").rename(tmp_path / "new")
    if start_between:
        _store_word(tmp_path / "other", "theirs")
    assert _stored_word(tmp_path / "new") == "mine"
    assert _stored_word(tmp_path / "old") is None
    assert _stored_word(tmp_path / "new") == "mine"


def test_a_directory_on_another_file_system(tmp_path: Path, elsewhere: Path) -> None:
    """It may be moved, or a copy of an unmounted one: one line states what to do."""
    _store_word(tmp_path / "old", "mine")
    record = data_of(tmp_path / "old").with_name("home.json")
    shutil.copytree(tmp_path / "old", elsewhere / "copy")
    shutil.move(tmp_path / "old", elsewhere / "new")
    for name in ("new", "copy"):
        with pytest.raises(UsageError, match=f"if it was moved .*, remove {record};.* is a copy"):
            run_postgres(elsewhere / name).__enter__()
    record.unlink()
    assert _stored_word(elsewhere / "new") == "mine"
    assert _stored_word(elsewhere / "copy") is None


def test_a_copied_directory_starts_without_data(tmp_path: Path) -> None:
    """The copy of a checkout does not write into the data of the first."""
    _store_word(tmp_path / "first", "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    assert _stored_word(tmp_path / "second") is None
    _store_word(tmp_path / "second", "second")
    assert (_stored_word(tmp_path / "first"), _stored_word(tmp_path / "second")) == (
        "first",
        "second",
    )


def test_data_that_are_gone(tmp_path: Path) -> None:
    """In a new container no empty database replaces them: one line names their place."""
    _store_word(tmp_path, "lost")
    folder = data_of(tmp_path).parent
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match=f"were in {folder}.*remove .*{postgres_data.NOTE}"):
        run_postgres(tmp_path).__enter__()
    (tmp_path / postgres_data.NOTE).unlink()
    assert _stored_word(tmp_path) is None


def test_a_demo_in_a_new_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`leadloop demo` and `up` start without data anyway: missing data do not stop them."""
    monkeypatch.chdir(tmp_path)
    with environment.enter_locked_directory("demo"):
        _store_word(Path(".leadloop/pg"), "lost")
        shutil.rmtree(data_of(Path(".leadloop/pg")).parent)
    with environment.enter_locked_directory("demo"):
        assert _stored_word(Path(".leadloop/pg")) is None


def test_a_note_that_names_another_place(tmp_path: Path) -> None:
    """A folder outside the store is never used as our data, whatever the note names."""
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    (tmp_path / "pg").mkdir()
    (tmp_path / "pg" / postgres_data.NOTE).write_text(f'{{"data": "{other / "data"}"}}')
    assert _stored_word(tmp_path / "pg") is None
    assert list(other.rglob("*")) == [other / "data"]


def test_binaries_are_copied_once_by_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that start together get one complete copy, which everybody may read."""
    monkeypatch.setattr(postgres_data, "STORE", tmp_path / "store")
    package = tmp_path / "site" / "package"
    package.mkdir(parents=True, mode=0o700)
    for number in range(200):
        (package / f"{number}").write_text("program")
        (package / f"{number}").chmod(0o700)
    (tmp_path / "store" / "binaries" / "1.0.new").mkdir(parents=True)

    def copied(_: int) -> int:
        copy = postgres_data.copy_binaries(tmp_path / "site", ["package", "absent.libs"], "1.0")
        return len(list((copy / "package").iterdir()))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(copied, range(8))) == {200}
    (copy,) = (tmp_path / "store" / "binaries").iterdir()
    assert {stat.S_IMODE(path.stat().st_mode) for path in copy.rglob("*")} == {0o755}


def test_a_store_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root runs no program from a folder that another user may change; one line states it."""
    monkeypatch.setattr(postgres_data, "STORE", tmp_path / "store")
    (tmp_path / "store").mkdir()
    os.chown(tmp_path / "store", _PERSON, _PERSON)
    with pytest.raises(UsageError, match=rf"{tmp_path}/store: it belongs .* {_PERSON}"):
        run_postgres(tmp_path / "pg").__enter__()
