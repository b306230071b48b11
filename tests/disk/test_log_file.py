"""The production log: nobody can redirect it or hold it up, and no rotation loses what is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grym_fetch.disk.log_file import LogFile

NAME = "asset-manager.log"


def opened(root: Path, *, max_bytes: int = 100, keep: int = 3) -> LogFile:
    return LogFile(root, NAME, below="logs", max_bytes=max_bytes, keep=keep)


def lines(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "logs").iterdir())}


def test_lines_are_appended(tmp_path: Path) -> None:
    """The folder is made, and existing lines are kept."""
    for line in (b"one\n", b"two\n"):
        log = opened(tmp_path)
        log.write(line)
        log.close()
        log.close()
    assert lines(tmp_path) == {NAME: b"one\ntwo\n"}


@pytest.mark.posix
@pytest.mark.shows("S5")
def test_no_link_is_followed(tmp_path: Path) -> None:
    """A symlink or a hard link in the file's place, or a symlink in the folder's, is refused; nothing is written."""
    victim = tmp_path / "bashrc"
    victim.write_bytes(b"precious")
    (tmp_path / "logs").mkdir()
    for link in (os.symlink, os.link):
        link(victim, tmp_path / "logs" / NAME)
        with pytest.raises(OSError, match=r"symbolic links|this user alone"):
            opened(tmp_path)
        (tmp_path / "logs" / NAME).unlink()
    (tmp_path / "logs").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "logs").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symlink"):
        opened(tmp_path)
    assert victim.read_bytes() == b"precious"
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.posix
@pytest.mark.parametrize("has_reader", [False, True])
def test_a_pipe_is_not_waited_for(tmp_path: Path, has_reader: bool) -> None:
    """A FIFO in the file's place is refused at once, whether somebody reads it or not."""
    (tmp_path / "logs").mkdir()
    os.mkfifo(tmp_path / "logs" / NAME)
    reader = os.open(tmp_path / "logs" / NAME, os.O_RDONLY | os.O_NONBLOCK) if has_reader else -1
    with pytest.raises(OSError, match=r"No such device|this user alone"):
        opened(tmp_path)
    if has_reader:
        os.close(reader)


@pytest.mark.posix
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_not_written_to(tmp_path: Path) -> None:
    """Its owner could read or change what is logged."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / NAME).write_bytes(b"")
    os.chown(tmp_path / "logs" / NAME, 12345, -1)
    with pytest.raises(PermissionError):
        opened(tmp_path)


def test_a_full_file_is_rotated_and_the_oldest_goes(tmp_path: Path) -> None:
    """The newest old file is ``.1``; only as many are kept as were asked for."""
    log = opened(tmp_path, max_bytes=5, keep=2)
    for number in range(4):
        log.write(b"%d...\n" % number)
    log.close()
    assert lines(tmp_path) == {NAME: b"3...\n", f"{NAME}.1": b"2...\n", f"{NAME}.2": b"1...\n"}


@pytest.mark.posix
def test_a_link_put_there_before_the_rotation_is_not_followed(tmp_path: Path) -> None:
    """A rename moves the name, whatever it is; the new file is opened as carefully as the first one."""
    victim = tmp_path / "bashrc"
    victim.write_bytes(b"precious")
    log = opened(tmp_path, max_bytes=5)
    log.write(b"12345")
    (tmp_path / "logs" / f"{NAME}.1").symlink_to(victim)
    (tmp_path / "logs" / NAME).unlink()
    (tmp_path / "logs" / NAME).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        log.write(b"evil")
    log.close()
    assert victim.read_bytes() == b"precious"


def test_processes_that_share_a_file_rotate_it_once(tmp_path: Path) -> None:
    """Twelve processes that find it full at once make one old file, not twelve that push out the history."""
    logs = [opened(tmp_path, max_bytes=30, keep=3) for _ in range(12)]
    logs[0].write(b"x" * 30)
    for log in logs:
        log.write(b"-\n")
    for log in logs:
        log.close()
    assert lines(tmp_path) == {NAME: b"-\n" * 12, f"{NAME}.1": b"x" * 30}
