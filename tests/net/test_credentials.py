"""Where passwords come from: the netrc file, and who is asked without any proof."""

from __future__ import annotations

from pathlib import Path

import pytest

from grym_fetch.errors import PolicyRefused
from grym_fetch.net.credentials import read_netrc
from tests.support.project import Project

NETRC = """
machine models.example.org login me password hunter2
machine UPPER.example.org login you password swordfish
default login anybody password everywhere
"""


@pytest.fixture
def netrc(tmp_path: Path) -> Path:
    """A netrc file that only its owner may read."""
    file = tmp_path / "netrc"
    file.write_text(NETRC)
    file.chmod(0o600)
    return file


@pytest.mark.shows("A13", "S7")
def test_netrc_names_exact_hosts(netrc: Path) -> None:
    """Each host has its own entry; `default` would hand a password to every server there is."""
    assert read_netrc({"NETRC": str(netrc)}) == {
        "models.example.org": ("me", "hunter2"),
        "upper.example.org": ("you", "swordfish"),
    }


@pytest.mark.shows("A13", "S7")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o677])
def test_a_netrc_that_is_not_private_is_not_used(netrc: Path, mode: int) -> None:
    """Others could have read it, or written it."""
    netrc.chmod(mode)
    assert read_netrc({"NETRC": str(netrc)}) == {}


@pytest.mark.shows("A13", "S11")
@pytest.mark.parametrize("data", [b"machine", b"password x", b"\xff\xfe\x00", b"macdef x\n"])
def test_a_netrc_that_cannot_be_read_is_none(netrc: Path, data: bytes) -> None:
    """A damaged file is no reason to fail."""
    netrc.write_bytes(data)
    assert read_netrc({"NETRC": str(netrc)}) == {}


def test_without_a_home_there_is_no_netrc(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container a process may have no home at all."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert read_netrc({}) == {}


@pytest.mark.shows("S6")
@pytest.mark.parametrize("mirrors", [[], ["https://models.example.org/a.bin"]])
async def test_plain_http_needs_a_checksum(tmp_path: Path, mirrors: list[str]) -> None:
    """Without one, anybody on the way could change the bytes; a mirror with https does not make up for it."""
    project = Project(tmp_path)
    project.add("a", [*mirrors, "http://192.0.2.1/a.bin"], b"content", pinned=False)
    async with project.manager(allow_unpinned=True) as manager:
        with pytest.raises(PolicyRefused, match="plain http and no checksum"):
            await manager.download_asset("a")
