"""Which project has what from the store: noted in a folder that several users share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from grym_fetch.disk.state import StateFolder
from grym_fetch.runtime import system
from grym_fetch.store.users import USERS, Use, UseLog, forget_user, store_users
from tests.support.system import descriptors

FIRST, SECOND = (Use(f"m/{name}.bin", f"objects/sha256/00/{name}", 5) for name in "ab")


@pytest.fixture
def store(tmp_path: Path) -> StateFolder:
    (tmp_path / "store").mkdir()
    return StateFolder(tmp_path / "store")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    return tmp_path / "assets"


def the_file(store: StateFolder) -> Path:
    """The one file among the users."""
    (found,) = (store.top / USERS).iterdir()
    return found


@pytest.mark.linux
def test_each_use_is_noted_once(store: StateFolder, project: Path) -> None:
    """By this process and the next one, in a file that all may read; nothing stays open."""
    before, old = descriptors(), os.umask(0o077)
    try:
        for _ in range(2):
            log = UseLog(store, project)
            for use in (FIRST, SECOND, FIRST):
                log.note([use])
    finally:
        os.umask(old)
    (user,) = store_users(store)
    assert (user.owner, user.assets_dir, user.is_gone, user.uses) == (os.geteuid(), project, False, (FIRST, SECOND))
    assert len(the_file(store).read_bytes().splitlines()) == 3
    assert the_file(store).stat().st_mode & 0o777 == 0o644
    forget_user(store, user)
    assert list(store_users(store)) == []
    assert descriptors() == before


def linked(place: Path, precious: Path) -> None:
    os.link(precious, place)


def symlinked(place: Path, precious: Path) -> None:
    place.symlink_to(precious)


def piped(place: Path, _: Path) -> None:
    os.mkfifo(place)


@pytest.mark.posix
@pytest.mark.parametrize("put", [linked, symlinked, piped])
@pytest.mark.timeout(60)  # without its guard, it would wait for ever
@pytest.mark.shows("S20")
def test_nothing_is_written_to_what_others_have_put_there(
    store: StateFolder, project: Path, tmp_path: Path, put: Callable[[Path, Path], None]
) -> None:
    """Whoever may write to the store knows the name, and may give it to a file, a link or a pipe beforehand."""
    UseLog(store, project).note([FIRST])
    place = the_file(store)
    place.unlink()
    precious = tmp_path / "bashrc"
    precious.write_bytes(b"of mine\n")
    put(place, precious)
    with pytest.raises(OSError, match=place.name):
        UseLog(store, project).note([SECOND])
    assert precious.read_bytes() == b"of mine\n"


@pytest.mark.posix
def test_a_project_is_known_from_its_first_use_on(store: StateFolder, project: Path) -> None:
    """Its folder comes first: without it, a run that dies right then would leave a use of nobody."""
    UseLog(store, project).note([FIRST])
    (user,) = store_users(store)
    assert (user.assets_dir, user.uses) == (project, (FIRST,))
    assert str(project).encode() in the_file(store).read_bytes().splitlines()[0]


@pytest.mark.shows("S20")
def test_only_a_file_of_its_owners_name_counts(store: StateFolder, project: Path) -> None:
    """Others are not of ours, or forged: by another user, or through a symlink."""
    UseLog(store, project).note([FIRST])
    true = the_file(store)
    for name in ("notes.txt", f"{os.geteuid() + 1}.{'0' * 24}"):
        true.with_name(name).write_bytes(true.read_bytes())
    true.with_name(f"{os.geteuid()}.{'1' * 24}").symlink_to(true)
    true.with_name(f"{os.geteuid()}.{'2' * 24}").mkdir()
    assert [user.name for user in store_users(store)] == [true.name]


@pytest.mark.shows("S4")
def test_no_more_is_read_than_a_log_of_uses_may_have(
    store: StateFolder, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user may have made it as long as the disk."""
    limits: list[int] = []

    def read(*_: object, limit: int, owner: int) -> bytes:
        assert owner == os.geteuid()
        limits.append(limit)
        return b""

    UseLog(store, project).note([FIRST])
    monkeypatch.setattr("grym_fetch.store.users.read_regular", read)
    assert list(store_users(store)) == []
    assert limits == [64 * 1024 * 1024]


@pytest.mark.posix
@pytest.mark.shows("S20")
def test_a_terminal_does_not_become_ours(store: StateFolder, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others have put in the place of the file is neither waited for nor followed, nor does it control us."""
    flags: list[int] = []
    real = system.open_descriptor

    def opened(path: str, how: int, *more: int, **others: int) -> int:
        flags.append(how)
        return real(path, how, *more, **others)

    log = UseLog(store, project)
    log.note([FIRST])
    monkeypatch.setattr(system, "open_descriptor", opened)
    log.note([SECOND])
    care = os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    assert [each & care for each in flags if each & os.O_APPEND] == [care]


@pytest.mark.parametrize("line", [b"rubbish", b"", b"{}", b"\xff\xfe"])
def test_a_damaged_line_is_left_out(store: StateFolder, project: Path, line: bytes) -> None:
    """The others count: what they name is not removed."""
    log = UseLog(store, project)
    log.note([FIRST])
    with the_file(store).open("ab") as file:
        file.write(line + b"\n")
    UseLog(store, project).note([SECOND])
    (user,) = store_users(store)
    assert user.uses == (FIRST, SECOND)


def test_a_time_that_no_clock_shows_is_no_use(store: StateFolder, project: Path) -> None:
    """Another user may have written it: it would not even fit into a float."""
    log = UseLog(store, project)
    log.note([FIRST])
    log.note([Use("m/c.bin", "objects/sha256/00/c", 1 << 40)])
    log.note([Use("m/d.bin", "objects/sha256/00/d", -1)])
    (user,) = store_users(store)
    assert user.uses == (FIRST,)
