"""What is clearly not an asset is recognised, and what only looks unusual is not."""

from __future__ import annotations

import pytest

from grym_fetch.core.suspicion import BEGINNING_BYTES, POINTER_SIZES, read_pointer, suspicion

pytestmark = pytest.mark.shows("C13")

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 1234567890\n"
HUB = "https://huggingface.co/org/repo/blob/main/a.bin"


@pytest.mark.parametrize(
    ("beginning", "named"),
    [
        (b"", "an empty file"),
        (POINTER, "stands for 1,234,567,890 bytes with sha256:4d4d"),
        (POINTER.replace(b"\n", b"\r\n"), "git-lfs pointer"),
        (POINTER.replace(b"oid", b"ext-0-foo sha256:00\noid"), "git-lfs pointer"),
        (b"<!DOCTYPE html><title>Log in</title>", "a web page: a login"),
        (b"\xef\xbb\xbf \n<HTML lang=en>", "a web page"),
        (b'<?xml version="1.0"?>\n<!-- x -->\n<!doctype  html>', "a web page"),
    ],
)
def test_what_is_no_asset(beginning: bytes, named: str) -> None:
    """Pages, pointers and empty content are called what they are."""
    assert named in (suspicion(beginning, len(beginning), name="a.bin", url="https://h.example/a") or "")


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (b"<!doctype html>", "docs/index.HTML"),
        (b"<htmlish>", "a.bin"),
        (b"<svg>", "a.svg"),
        (b"{}", "a.json"),
        (b"\0", "a.bin"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a.txt"),
        (b"text about <!doctype html>", "a.txt"),
    ],
)
def test_what_may_be_one(beginning: bytes, name: str) -> None:
    """A page that is meant to be one, and anything else not clearly wrong, is accepted."""
    assert suspicion(beginning, len(beginning), name=name, url=HUB) is None


@pytest.mark.parametrize(
    ("url", "named"),
    [
        (HUB, "/resolve/"),
        ("https://github.com/o/r/blob/main/a.bin", "/raw/"),
        ("https://h.example/blob/a", "a login"),
        ("https://[", "a login"),
    ],
)
def test_a_page_about_a_file(url: str, named: str) -> None:
    """The address of a page that shows a file leads to the address of the file itself."""
    assert named in (suspicion(b"<html>", 6, name="a.bin", url=url) or "")


@pytest.mark.timeout(60)  # rather than for ever
@pytest.mark.parametrize("part", [b"<!---->", b"<!-- x --> ", b"<?xml x?>", POINTER[:43] + b"\r\n" * 400, b" \n"])
def test_what_only_begins_like_one(part: bytes) -> None:
    """There is one way to read it, so that a server cannot make the reading take for ever."""
    beginning = (part * BEGINNING_BYTES)[:BEGINNING_BYTES]
    assert suspicion(beginning, 10_000, name="a.bin", url=HUB) is None
    assert read_pointer(beginning, len(beginning)) is None


@pytest.mark.parametrize(
    "text",
    [
        POINTER.replace(b"1234567890", b"-1"),
        POINTER.replace(b"1234567890", b"9" * 20),
        POINTER.replace(b"1234567890", b"12 MB"),
        POINTER.replace(b"1234567890", b""),
        POINTER.replace(b"sha256", b"sha512"),
        POINTER.replace(b"4d", b"4D", 1),
        POINTER + b"x" * 1000,
    ],
)
def test_a_pointer_that_says_something_else(text: bytes) -> None:
    """No size and no digest is taken from it."""
    assert read_pointer(text, len(text)) is None


def test_the_length_of_a_pointer() -> None:
    """A pointer is recognised by its length if its bytes are not seen."""
    assert len(POINTER) in POINTER_SIZES
    assert len(POINTER.replace(b"1234567890", b"1")) in POINTER_SIZES
