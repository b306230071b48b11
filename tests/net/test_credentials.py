"""Where passwords come from: the netrc file, and which hosts are asked without any proof."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from yarl import URL

from grym_fetch.errors import PolicyRefused
from grym_fetch.net.credentials import find_credentials, read_hf_token, read_netrc
from tests.support.project import Project
from tests.support.system import descriptors

NETRC = """
machine models.example.org login me password hunter2
machine UPPER.example.org login you password swordfish
default login anybody password everywhere
"""


@pytest.fixture
def netrc(tmp_path: Path) -> Path:
    """A netrc file that only its owner can read."""
    file = tmp_path / "netrc"
    file.write_text(NETRC)
    file.chmod(0o600)
    return file


@pytest.mark.posix
@pytest.mark.shows("A13", "S7")
def test_netrc_names_exact_hosts(netrc: Path) -> None:
    """Each host has its own entry; `default` would hand a password to every server."""
    assert read_netrc({"NETRC": str(netrc)}) == {
        "models.example.org": ("me", "hunter2"),
        "upper.example.org": ("you", "swordfish"),
    }


@pytest.mark.shows("A13", "S7")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o677])
def test_a_netrc_that_is_not_private_is_not_used(netrc: Path, mode: int) -> None:
    """Others could have read or written it."""
    netrc.chmod(mode)
    assert read_netrc({"NETRC": str(netrc)}) == {}


@pytest.mark.shows("A13", "S11")
@pytest.mark.parametrize("data", [b"machine", b"password x", b"\xff\xfe\x00", b"macdef x\n"])
def test_a_netrc_that_cannot_be_read_is_none(netrc: Path, data: bytes) -> None:
    """A damaged file does not cause a failure."""
    netrc.write_bytes(data)
    assert read_netrc({"NETRC": str(netrc)}) == {}


@pytest.mark.posix
def test_without_a_home_there_is_no_netrc(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container a process may have no home folder at all."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert read_netrc({}) == {}


@pytest.mark.shows("S6")
@pytest.mark.parametrize("mirrors", [[], ["https://models.example.org/a.bin"]])
async def test_plain_http_needs_a_checksum(tmp_path: Path, mirrors: list[str]) -> None:
    """Without a checksum, anybody on the way could change the bytes; a mirror with https does not make up for it."""
    project = Project(tmp_path)
    project.add("a", [*mirrors, "http://192.0.2.1/a.bin"], b"content", pinned=False)
    async with project.manager(allow_unpinned=True) as manager:
        with pytest.raises(PolicyRefused, match="plain http and no checksum"):
            await manager.download_asset("a")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """The file that ``hf auth login`` leaves in a home folder."""
    file = tmp_path / "huggingface" / "token"
    file.parent.mkdir()
    file.write_text("hf_stored\n")
    return file


@pytest.mark.parametrize(
    "environ",
    [
        {"HF_TOKEN_PATH": "{root}/huggingface/token", "HF_HOME": "/nowhere"},
        {"HF_HOME": "{root}/huggingface", "XDG_CACHE_HOME": "/nowhere"},
        {"XDG_CACHE_HOME": "{root}"},
    ],
)
def test_the_token_of_the_hf_command(token_file: Path, environ: dict[str, str]) -> None:
    """It is found where `huggingface_hub` would find it, and not used where that would not use it."""
    root = str(token_file.parents[1])
    environ = {name: value.format(root=root) for name, value in environ.items()}
    assert read_hf_token(environ) == "hf_stored"
    assert read_hf_token({**environ, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}) == ""


@pytest.mark.shows("S7")
def test_the_stored_token_is_for_the_hub_alone(token_file: Path) -> None:
    """It stands in for HF_TOKEN, with the same rules, and gives way to it."""
    environ = {"HF_TOKEN_PATH": str(token_file)}
    stored = find_credentials(environ).find(URL("https://huggingface.co/a"))
    assert stored is not None
    assert (stored.field, stored.source) == ("Bearer hf_stored", "the token file of the hf command")
    for elsewhere in ("https://cdn.huggingface.co/a", "https://h.example/a", "http://huggingface.co/a"):
        assert find_credentials(environ).find(URL(elsewhere)) is None
    named = find_credentials({**environ, "HF_TOKEN": "hf_named"}).find(URL("https://huggingface.co/a"))
    assert named is not None
    assert (named.field, named.source) == ("Bearer hf_named", "HF_TOKEN")


@pytest.mark.posix
@pytest.mark.shows("S11")
@pytest.mark.parametrize("content", [b"", b"two words", b"a\nb", b"\xff\xfe", b"x" * 20_000])
def test_a_token_file_that_holds_no_token(token_file: Path, content: bytes) -> None:
    """Two lines, or bytes that are not text, are not sent as a token; nor is a folder or a pipe read as one."""
    token_file.write_bytes(content)
    before = descriptors()
    assert read_hf_token({"HF_TOKEN_PATH": str(token_file)}) == ""
    assert read_hf_token({"HF_TOKEN_PATH": str(token_file.parent)}) == ""
    os.mkfifo(token_file.with_name("pipe"))
    assert read_hf_token({"HF_TOKEN_PATH": str(token_file.with_name("pipe"))}) == ""
    assert descriptors() == before
