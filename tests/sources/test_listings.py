"""The lists of other tools: what we write reads back the same, and what they write is understood."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest import Asset
from grym_fetch.core.stated import StatedDigest
from grym_fetch.errors import UnknownSource
from grym_fetch.sources.listings import (
    FORMATS,
    digest_for,
    guess_format,
    joined,
    read_aria2,
    read_curl,
    read_dvc,
    read_list,
    read_pooch,
    read_sums,
    write_aria2,
    write_curl,
    write_list,
    write_pooch,
    write_sums,
)
from grym_fetch.sources.protocol import ListedFile
from tests.sources.listed import assets

A = Checksum.of(b"a")
MD5 = StatedDigest("md5", hashlib.md5(b"a").hexdigest())


@given(st.lists(assets(algorithms=("sha256",)), max_size=4))
def test_sums_read_back(listed: list[Asset]) -> None:
    """Names and digests survive."""
    assert read_sums(write_sums(listed)) == [ListedFile(each.local_path, checksum=each.checksum) for each in listed]


@given(st.lists(assets(algorithms=("sha256", "sha512", "blake2b")), max_size=4))
def test_pooch_reads_back(listed: list[Asset]) -> None:
    """Names, digests and the first address survive."""
    assert read_pooch(write_pooch(listed)) == [
        ListedFile(each.local_path, (each.url,), checksum=each.checksum) for each in listed
    ]


@given(st.lists(assets(algorithms=("sha256", "sha512")), max_size=4))
def test_aria2_reads_back(listed: list[Asset]) -> None:
    """Names, digests and all addresses survive."""
    assert read_aria2(write_aria2(listed)) == [
        ListedFile(each.local_path, each.urls, checksum=each.checksum) for each in listed
    ]


@given(st.lists(assets(algorithms=("sha256",)), max_size=4))
def test_curl_reads_back(listed: list[Asset]) -> None:
    """Names and the first address survive."""
    assert read_curl(write_curl(listed)) == [ListedFile(each.local_path, (each.url,)) for each in listed]


@given(assets(algorithms=("sha256",)), st.sampled_from(["metalink", "aria2", "curl", "sha256sums", "pooch"]))
def test_a_format_is_recognized(asset: Asset, name: str) -> None:
    """Each written format is recognised, whatever the file is called."""
    assert guess_format("list.txt", write_list([asset], name)) == name


@pytest.mark.shows("S11")
@pytest.mark.parametrize("read", [each.read for each in FORMATS.values()], ids=FORMATS)
@given(st.text(st.sampled_from("aф0= :-\"'\\#(\n\t")) | st.text())
def test_any_text_is_read_or_refused(read: Callable[[str], object], text: str) -> None:
    """Whatever the text, a reader fails in no other way."""
    with suppress(ValueError):
        read(text)


SUMS = f"""\
-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

# a comment
{A.hexdigest}  a.bin
{A.hexdigest.upper()} *./b.bin
SHA256 (c d.bin) = {A.hexdigest}
MD5 (e.bin) = {MD5.hexdigest}
\\{A.hexdigest}  f\\\\g\\nh

-----BEGIN PGP SIGNATURE-----
iQEzBAEBCgAdFiEE
-----END PGP SIGNATURE-----
"""


def test_what_others_write_as_sums() -> None:
    """Lists by coreutils in both modes, by BSD, escaped, and clear-signed; with any line end."""
    expected = [
        ListedFile("a.bin", checksum=A),
        ListedFile("b.bin", checksum=A),
        ListedFile("c d.bin", checksum=A),
        ListedFile("e.bin", stated=MD5),
        ListedFile("f\\g\nh", checksum=A),
    ]
    assert read_sums(SUMS) == read_sums(SUMS.replace("\n", "\r\n")) == expected


@pytest.mark.posix
def test_a_real_sha256sum(tmp_path: Path) -> None:
    """The program's output is read, and it accepts what we write."""
    program = shutil.which("sha256sum")
    assert program is not None, "coreutils are everywhere"
    (tmp_path / "a b").write_bytes(b"a")
    printed = subprocess.run([program, "a b"], cwd=tmp_path, capture_output=True, check=True, text=True).stdout
    assert read_sums(printed) == [ListedFile("a b", checksum=A)]
    ours = write_sums([Asset("a", "https://h.example/", "a b", checksum=A)])
    subprocess.run(
        [program, "--check", "--strict"], cwd=tmp_path, input=ours, check=True, text=True, capture_output=True
    )


def test_what_others_write() -> None:
    """Registries, lists and DVC files as documented by their tools."""
    assert read_pooch(f"# c\nc137.csv {A.hexdigest}\n'a b' md5:{MD5.hexdigest} https://h.example/a\n") == [
        ListedFile("c137.csv", checksum=A),
        ListedFile("a b", ("https://h.example/a",), stated=MD5),
    ]
    aria2 = f"https://h.example/x/a.iso?q\thttps://m.example/a\n  dir=iso\n\tchecksum=sha-256={A.hexdigest}\nhttps://h.example/b\n"
    assert read_aria2(aria2) == [
        ListedFile("iso/a.iso", ("https://h.example/x/a.iso?q", "https://m.example/a"), checksum=A),
        ListedFile("b", ("https://h.example/b",)),
    ]
    curl = '--location\nurl = https://h.example/a?x\noutput "my \\"a\\""\n\nurl: "https://h.example/b"\n-O\n'
    assert read_curl(curl) == [
        ListedFile('my "a"', ("https://h.example/a?x",)),
        ListedFile("b", ("https://h.example/b",)),
    ]
    dvc = f"outs:\n- md5: {MD5.hexdigest}\n  size: 1\n  hash: md5\n  path: data.xml\n"
    assert read_dvc(dvc) == [ListedFile("data.xml", (), 1, None, MD5)]
    imported = f"md5: 0\nfrozen: true\ndeps:\n- etag: x\n  size: 1\n  path: https://h.example/d\n{dvc}"
    assert read_dvc(imported) == [ListedFile("data.xml", ("https://h.example/d",), 1, None, MD5)]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("SHA256SUMS", f"{A.hexdigest}  a\nnonsense\n", "line 2 is not a checksum"),
        ("SHA256SUMS", f"{'0' * 50}  a\n", "line 1 has a digest of 50 digits"),
        ("registry.txt", "a " + "0" * 64 + " b c\n", "line 1 is not a name"),
        ("registry.txt", "a " + "0" * 64 + "\n'a\n", "line 2"),
        ("a.txt", "  out=x\n", "its format is not known"),
        ("a.txt", "https://h.example/a\n  checksum=crc=1\n", "line 2|line 1"),
        ("a.txt", "https://h.example/a\n  out=a\n  checksum sha-256\n", "line 3 is not an option"),
        ("a.txt", "url = x\nproxy = y\n", "line 2 has an option"),
        ("a.dvc", "outs:\n- md5: 1.dir\n  path: d\n", "folder"),
        ("a.dvc", "outs:\n- size: 1\n", "no path"),
        ("a.dvc", "outs: {a: b}\n ? x\n", "line 2 is not of a .dvc"),
        ("a.txt", "", "its format is not known"),
        ("SHA256SUMS.txt", "\ud800", "not UTF-8"),
        ("a.dvc", "\n", "names no files"),
    ],
)
def test_what_is_refused(name: str, text: str, reason: str) -> None:
    """A list that cannot be read completely is not read at all, and the error says where."""
    with pytest.raises(ValueError, match=reason):
        read_list(text.encode("utf-8", "surrogatepass"), name)


def test_what_cannot_be_said() -> None:
    """A checksum that a format cannot express is an error that names the asset."""
    blake = Asset("b", "https://h.example/b", "b", checksum=Checksum.of(b"", "blake2b"))
    bare = Asset("u", "https://h.example/u", "u")
    for name, wrong in (("aria2", [blake]), ("metalink", [blake]), ("sha256sums", [blake, bare]), ("pooch", [bare])):
        with pytest.raises(ValueError, match="has") as caught:
            write_list([blake, bare], name)
        assert [each.partition(":")[0] for each in str(caught.value).split("; ")] == [each.id for each in wrong]
    assert "output" in write_list([blake, bare], "curl")


def test_the_digest_of_one_file() -> None:
    """It is found by name, in any folder; a lone digest is that of the file; the strongest counts."""
    assert digest_for("a.bin", SUMS.encode(), "SHA256SUMS").checksum == A
    assert digest_for("x", f"{A.hexdigest}\n".encode(), "x.sha256").checksum == A
    both = f"MD5 (d/a) = {MD5.hexdigest}\nSHA256 (d/a) = {A.hexdigest}\n"
    assert digest_for("a", both.encode(), "list").checksum == A
    with pytest.raises(UnknownSource, match=r"does not list 'a.bim'.*Nearest: a.bin"):
        digest_for("a.bim", SUMS.encode(), "SHA256SUMS")
    two = f"{A.hexdigest}  x/a\n{'0' * 64}  y/a\n"
    with pytest.raises(ValueError, match="several digests"):
        digest_for("a", two.encode(), "SHA256SUMS")


def test_below_an_address() -> None:
    """A file without an address of its own is below the base address, with its name encoded."""
    assert joined("https://h.example/d/", ListedFile("a b/c#.bin")) == "https://h.example/d/a%20b/c%23.bin"


@pytest.mark.parametrize("name", ["metalink", "aria2", "curl", "pooch"])
def test_buckets_are_not_for_other_tools(name: str) -> None:
    """Only http and https addresses are written, and an asset without any is named."""
    both = Asset("both", "s3://models/a", "a", fallback_urls=("https://h.example/a",), checksum=A)
    written = write_list([both], name)
    assert "https://h.example/a" in written
    assert "s3://" not in written
    with pytest.raises(ValueError, match="only: has no http"):
        write_list([Asset("only", "s3://models/a", "a", checksum=A)], name)
