"""Metalink 4: what is written reads back the same, and no document does any harm."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest import Asset
from grym_fetch.core.stated import StatedDigest
from grym_fetch.sources.metalink import read_metalink, write_metalink
from grym_fetch.sources.protocol import ListedFile
from tests.sources.listed import assets

EXAMPLE = """<?xml version="1.0" encoding="UTF-8"?>
<metalink xmlns="urn:ietf:params:xml:ns:metalink">
  <published>2009-05-15T12:23:23Z</published>
  <file name="example.ext">
    <size>14471447</size>
    <identity>Example</identity>
    <hash type="md5">5d41402abc4b2a76b9719d911017c592</hash>
    <hash type="sha-256">{digest}</hash>
    <pieces length="1048576" type="sha-256"><hash>{other}</hash></pieces>
    <url location="de" priority="2">ftp://ftp.example.com/example.ext</url>
    <url priority="1">http://example.com/example.ext?a=1&amp;b=2</url>
    <metaurl mediatype="torrent">http://example.com/example.ext.torrent</metaurl>
  </file>
  <file name="folder/old"><hash type="sha-1">aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d</hash></file>
</metalink>"""


def test_the_example_of_the_rfc() -> None:
    """Addresses come by priority; the best digest counts, and digests of pieces are not a file's."""
    digest = Checksum.of(b"hello")
    first, second = read_metalink(EXAMPLE.format(digest=digest.hexdigest, other="0" * 64))
    urls = ("http://example.com/example.ext?a=1&b=2", "ftp://ftp.example.com/example.ext")
    assert first == ListedFile("example.ext", urls, 14471447, digest)
    assert second == ListedFile("folder/old", stated=StatedDigest("sha1", "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"))


@given(st.lists(assets(algorithms=("sha256", "sha512")), max_size=4))
def test_what_is_written_reads_back_the_same(listed: list[Asset]) -> None:
    """Names, addresses, sizes and checksums survive."""
    assert read_metalink(write_metalink(listed)) == [
        ListedFile(asset.local_path, asset.urls, asset.size, asset.checksum) for asset in listed
    ]


BOMB = '<!DOCTYPE m [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'


@pytest.mark.shows("S11")
@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (f"{BOMB}<metalink>&b;</metalink>", "document type"),
        ('<!DOCTYPE m SYSTEM "file:///etc/passwd"><m/>', "document type"),
        ("<a>" * 40, "40|32 deep"),
        ("<metalink>", "line 1"),
        ("", "not XML"),
        ("<a>\0</a>", "not XML"),
        ('<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file/></metalink>', "no name"),
        (EXAMPLE.replace("14471447", "-1"), "size is not a whole number"),
        (EXAMPLE.replace('priority="1"', 'priority="x"'), "priority is not"),
        (EXAMPLE.format(digest="12", other=""), "2 hex digits"),
    ],
)
def test_what_is_refused(document: str, reason: str) -> None:
    """Entities, endless nesting, and anything that is not XML or not a Metalink are refused."""
    with pytest.raises(ValueError, match=reason):
        read_metalink(document)


@pytest.mark.shows("S11")
@given(st.text(st.sampled_from('<>/!&;"= amfile\0\ud800'), max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever the text, the reader fails in no other way."""
    with suppress(ValueError):
        read_metalink(text)


def test_what_cannot_be_said() -> None:
    """Metalink has no name for BLAKE2b: it would be lost silently."""
    asset = Asset("a", "https://h.example/a", "a", checksum=Checksum.of(b"", "blake2b"))
    with pytest.raises(ValueError, match="BLAKE2b"):
        write_metalink([asset])
