"""What is fuzzed: each target takes any bytes, and fails with an `AssertionError` or whatever else it raises.

Rules: a target is quick, keeps nothing between calls, and writes into no folder but its own. What it asserts is what
the rest of the program relies on, not only that nothing is raised.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath

import zstandard
from yarl import URL

from grym_fetch.archive.reader import members, reading
from grym_fetch.archive.tree import decode_record
from grym_fetch.core.addresses import follow_redirect, forbidden_reason, is_loopback, parse_address
from grym_fetch.core.archives import ArchiveKind, Census, Limits
from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import (
    BadResponse,
    BadStatus,
    ManifestError,
    PolicyRefused,
    RepositoryError,
    UnsafeArchive,
)
from grym_fetch.core.http import Asked, Partial, ResponseHead, Whole, judge, parse_retry_after
from grym_fetch.core.journal import JournalEncoder, Piece, read_journal
from grym_fetch.core.lfs import read_batch_answer
from grym_fetch.core.lfs_addresses import LfsAddress
from grym_fetch.core.manifest_parser import parse_manifest
from grym_fetch.core.manifest_schema import MANIFEST
from grym_fetch.core.manifest_text import ManifestText
from grym_fetch.core.manifest_values import MAX_SIZE_BYTES, check_address
from grym_fetch.core.paths import check_local_path
from grym_fetch.core.ranges import ByteRange, parse_content_range, parse_length
from grym_fetch.core.suspicion import MAX_POINTER_BYTES, read_pointer, suspicion
from grym_fetch.core.text import redact_text, redact_url, safe_text
from grym_fetch.disk.local_files import LocalFiles
from grym_fetch.disk.owner import Owner
from grym_fetch.disk.rollback import decode_version, encode_version
from grym_fetch.disk.state import read_state
from grym_fetch.disk.verified import decode_entry
from grym_fetch.repo.placeholder import Placeholder
from grym_fetch.repo.record import MovedFiles
from grym_fetch.runtime.threads import WorkerThreads
from grym_fetch.sources import git_pack

DIGEST = "0" * 64
SCHEMES = ("http", "https", "s3", "gs", "az", "lfs")


@dataclass(frozen=True)
class Target:
    """``run`` takes any bytes; ``seeds`` are good inputs to start with."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def text_of(data: bytes) -> str:
    """Any text, including half surrogate pairs."""
    return data.decode("utf-8", "surrogateescape")


def stays_inside(path: str) -> bool:
    """Whether a path is relative and stays inside, by the rules of POSIX and Windows."""
    kinds = (PurePosixPath(path), PureWindowsPath(path))
    return not any(p.is_absolute() or p.drive or p.root or ".." in p.parts for p in kinds) and bool(path)


@cache
def folder() -> Path:
    """Where files that a target needs are written."""
    return Path(tempfile.mkdtemp(prefix="grym-fetch-fuzz-"))


# --- What a user or a stranger wrote ------------------------------------------------------------------------


def manifest(data: bytes) -> None:
    """A manifest is complete and safe, or is refused; and an edit changes nothing else."""
    try:
        parsed = parse_manifest(data, "m").manifest
    except ManifestError as error:
        assert error.problems
        assert safe_text(str(error), limit=10**9) == str(error).replace("\n", "\\n")
        return
    places = [asset.local_path for asset in parsed.assets]
    assert all(map(stays_inside, places))
    assert len({place.casefold() for place in places}) == len(places)
    assert all(URL(url).scheme in SCHEMES for asset in parsed.assets for url in asset.urls)
    again = parse_manifest(ManifestText.read(data).touch(0.0).encode(), "m").manifest
    assert again.assets == parsed.assets
    assert (again.version, again.expires) == (parsed.version, parsed.expires)
    assert parse_manifest(json.dumps(MANIFEST.write(parsed)).encode(), "m").manifest == parsed


def local_path(data: bytes) -> None:
    """A path is refused, or it is valid everywhere and stays the same when checked again."""
    try:
        path = check_local_path(text_of(data))
    except ValueError:
        return
    assert stays_inside(path)
    assert check_local_path(path) == path
    assert safe_text(path, limit=10_000) == path


def placeholder(data: bytes) -> None:
    """A placeholder is read as it was written, or refused."""
    try:
        found = Placeholder.decode(data)
    except ValueError:
        return
    assert Placeholder.decode(found.encode()) == found


def record_of_moves(data: bytes) -> None:
    """The record never leads outside, whichever of its two readers reads it."""
    path = folder() / "asset-manifest.json"
    path.write_bytes(data)
    try:
        for moved in MovedFiles(folder()).files:
            assert stays_inside(moved.original_path)
            assert stays_inside(moved.storage_path)
            assert ".git" not in moved.original_path.casefold().split("/")
    except RepositoryError:
        pass
    threads = WorkerThreads("fuzz", 1)
    try:
        for place in LocalFiles(folder() / "assets", folder(), threads)._moved_files().values():
            assert stays_inside(str(place.relative_to(folder())))
    finally:
        threads.close()


# --- What a server sent -------------------------------------------------------------------------------------


def content_range(data: bytes) -> None:
    """A Content-Range is a part of the content, or invalid."""
    text = data.decode("latin-1")
    if (found := parse_content_range(text)) is not None:
        if found.range is not None:
            assert 0 <= found.range.start < found.range.stop
            assert found.total is None or found.range.stop <= found.total
        else:
            assert found.total is None or found.total >= 0
    length = parse_length(text)
    assert length is None or 0 <= length < 2**63


def retry_after(data: bytes) -> None:
    """A wait is a number of seconds, or none; the input's two halves are the field and the server's date."""
    text, _, date = data.decode("latin-1").partition("\n")
    wait = parse_retry_after(text, date or None)
    assert wait is None or (wait >= 0 and math.isfinite(wait))


def response(data: bytes) -> None:
    """Whatever a head says, there is a verdict, and bytes are trusted only where they were requested."""
    first, *lines = data.decode("latin-1").split("\n")
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), []).append(value.strip())
    status = int(first) if first.isdigit() and first.isascii() and len(first) == 3 else 206
    wanted = ByteRange(10, 100)
    for asked in (Asked(wanted, 1000), Asked(wanted, None), Asked(None, 1000), Asked(None, None)):
        match judge(asked, ResponseHead(status, fields)):
            case Partial(range=got, total=total):
                assert asked.wanted is not None
                assert status == 206
                assert got.start == wanted.start
                assert got.stop <= wanted.stop
                assert total is None or asked.total in (None, total)
            case Whole(length=length):
                assert status == 200
                assert length is None or asked.total in (None, length)
            case _:
                pass


def redirect(data: bytes) -> None:
    """A redirect leads to http or https, never down, without a user; or it is refused, and reveals no secret."""
    for base in ("https://me:hunter2@h.example/a/b?sig=hunter2", "http://127.0.0.1:8000/x"):
        try:
            target = follow_redirect(parse_address(base), data.decode("latin-1"))
        except PolicyRefused as error:
            assert "hunter2" not in str(error)
            continue
        assert target.scheme in ("http", "https")
        assert target.scheme == "https" or base.startswith("http:")
        assert target.user is None
        assert target.password is None
        forbidden_reason(target.host or "", allow_private=False)


def foreign_text(data: bytes) -> None:
    """Shown text is on one line and printable, and no address in it contains a secret."""
    text = text_of(data)
    shown = safe_text(text)
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert len(shown) <= 301
    redact_url(text)
    hidden = redact_text(f"see https://me:hunter2@h.example/x?sig=hunter2 {text}")
    assert "hunter2" not in hidden or "hunter2" in text


def git_answer(data: bytes) -> None:
    """Lines, names of commits, and packs: read within bounds, or none. The sum at a pack's end is no obstacle."""
    for read in (git_pack.read_refs, git_pack.pack_in):
        with contextlib.suppress(ValueError):
            read(data)
    for pack in (data, data + hashlib.sha1(data, usedforsecurity=False).digest()):
        try:
            found = git_pack.read_pack(pack, "sha1")
        except ValueError:
            continue
        assert sum(len(content) for _, content in found.values()) <= git_pack.MAX_UNPACKED_BYTES
        for kind, content in found.values():
            assert kind in ("commit", "tree", "blob", "tag")
            assert isinstance(content, bytes)


def git_object(data: bytes) -> None:
    """A folder, and a change of an object: each gives no more than it may, or is refused."""
    folder_oid, commit_oid = "5e" * 20, "4d" * 20
    objects = {commit_oid: ("commit", f"tree {folder_oid}\n".encode()), folder_oid: ("tree", data)}
    try:
        files = git_pack.files_of(commit_oid, objects)
        assert all(len(file.oid) <= 40 for file in files)
        assert len(files) <= len(data)
    except ValueError:
        pass
    base = b"0123456789abcdef" * 8
    with contextlib.suppress(ValueError, IndexError):
        assert len(git_pack._applied(data, base, 1000)) <= 1000


def lfs_pointer(data: bytes) -> None:
    """A pointer states a SHA-256 and a size, or it is none; and nobody takes one for the file."""
    if (found := read_pointer(data, len(data))) is not None:
        checksum, size = found
        assert len(data) <= MAX_POINTER_BYTES
        assert checksum.algorithm == "sha256"
        assert 0 <= size <= MAX_SIZE_BYTES
        assert suspicion(data, len(data), name="a.bin", url="https://h.example/a") is not None


def lfs_answer(data: bytes) -> None:
    """Where an object is: an address that may be asked, with fields that say nothing about the request itself."""
    try:
        lead = read_batch_answer(data, LFS_OBJECT, "https://h.example/")
    except (BadResponse, BadStatus, PolicyRefused):
        return
    assert lead.url.scheme == "https" or is_loopback(lead.url)
    assert lead.url.user is None
    assert lead.url.password is None
    for name, value in lead.fields.items():
        assert name.isascii()
        assert value.isascii()
        assert not set(name + value) & set("\r\n\0")
        assert name.lower() not in ("host", "range", "cookie", "content-length", "transfer-encoding", "connection")


def lfs_address(data: bytes) -> None:
    """An address of an object is refused, or it is the same when it is written again."""
    try:
        text = check_address(f"lfs://{text_of(data)}")
    except ValueError:
        return
    assert str(LfsAddress.parse(text)) == text


# --- What we wrote ourselves, before something happened to it -----------------------------------------------


def journal(data: bytes) -> None:
    """Raw bytes, and the same lines with the right sums: no claim reaches past the size or past what is undamaged."""
    sealed, chain = b"", read_journal(b"").chain
    for line in data.split(b"\n"):
        chain = zlib.crc32(line, chain)
        sealed += b"%08x %s\n" % (chain, line)
    for written in (data, sealed):
        state = read_journal(written)
        assert state.valid_bytes <= len(written)
        claims = [piece.range for piece in state.pieces]
        assert all(0 <= claim.start < claim.stop for claim in claims)
        again = read_journal(written[: state.valid_bytes])
        assert (again.size, list(again.pieces), again.chain) == (state.size, list(state.pieces), state.chain)


def state_files(data: bytes) -> None:
    """VerifiedCache, versions seen and records of trees: read, or none of ours."""
    text = data.rstrip(b"\n")
    sealed = b"%08x %s" % (zlib.crc32(text), text)
    for line in (data, sealed):
        if (entry := decode_entry(line)) is not None:
            assert isinstance(entry.path, str)
            assert isinstance(entry.checksum, str)
        version = decode_version(line)
        assert version is None or decode_version(encode_version(version)) == version
    decode_record(data, "x")
    Owner.parse(data.decode("utf-8", "replace"))
    (folder() / "state").write_bytes(data)
    descriptor = os.open(folder(), os.O_RDONLY)
    try:
        assert read_state(descriptor, "state", 1 << 16) == data[: 1 << 16]
    finally:
        os.close(descriptor)


# --- Archives -----------------------------------------------------------------------------------------------

LIMITS = Limits(members=50, bytes=1 << 20, ratio=200, ratio_free=1 << 20)


def archive(kind: ArchiveKind) -> Callable[[bytes], None]:
    """Members stay inside and bounded, or the archive is refused."""

    def run(data: bytes) -> None:
        census = Census("a", len(data), LIMITS)
        total = 0
        try:
            with reading(Path("a"), census):
                for member, read in members(io.BytesIO(data), kind, census):
                    if not census.admit(member):
                        continue
                    assert stays_inside(member.path)
                    while member.kind == "file" and (chunk := read(65_536)):
                        assert len(chunk) <= 65_536
                        total += len(chunk)
                        census.count(len(chunk))
                census.close()
        except UnsafeArchive as error:
            assert safe_text(str(error), limit=10**6) == str(error)
        assert total <= LIMITS.bytes + 65_536

    return run


def _zip(compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        made.writestr("a/b.txt", b"hello " * 50)
        made.writestr("c", b"")
    return file.getvalue()


def _tar(form: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as made:
        for name, kind, link in (
            ("a", tarfile.DIRTYPE, ""),
            ("a/s", tarfile.SYMTYPE, "b"),
            (f"a/{'n' * 60}/{'n' * 60}", tarfile.REGTYPE, ""),
        ):
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, link
            made.addfile(header)
        header = tarfile.TarInfo("a/b")
        header.size = 5
        made.addfile(header, io.BytesIO(b"hello"))
    return file.getvalue().rstrip(b"\0") + bytes(1024)  # without most of the padding


def _gzipped(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


_TARS = (_tar(tarfile.USTAR_FORMAT), _tar(tarfile.GNU_FORMAT), _tar(tarfile.PAX_FORMAT))
LFS_OBJECT = LfsAddress("h.example/o/r.git/info/lfs", DIGEST, 1)
_POINTER = (
    f"version https://git-lfs.github.com/spec/v1\next-0-x sha256:{DIGEST}\noid sha256:{DIGEST}\nsize 12\n".encode()
)


def _pack(*entries: tuple[int, bytes, bytes]) -> bytes:
    """A pack without its sum: the kind of each object, what it changes, and its content."""
    objects = (bytes([kind << 4 | len(content)]) + base + zlib.compress(content) for kind, base, content in entries)
    return b"PACK\0\0\0\2" + len(entries).to_bytes(4) + b"".join(objects)


def _lfs_answer(**found: object) -> bytes:
    return json.dumps({"transfer": "basic", "objects": [{"oid": DIGEST, "size": 1, **found}]}).encode()


_LINES = b"".join(map(git_pack.packet, ("packfile", f"{DIGEST} HEAD symref-target:refs/heads/main", "ERR no")))
_BLOB = hashlib.sha1(b"blob 3\0abc", usedforsecurity=False).digest()
_ENTRY = {"id": "a", "url": "https://h.example/a?b", "localPath": "m/a.bin", "checksum": DIGEST, "size": 1}
_MOVED = {"originalPath": "a/b", "storagePath": "b", "size": 1, "checksum": DIGEST, "movedOn": "now", "required": True}
_PLACEHOLDER = Placeholder(
    id="a", original_path="a/b", storage_path="b", size=1, checksum=Checksum.parse(DIGEST), moved_on="now"
)
_TREE = (
    b'{"v": 1, "folder": "x", "content": "c", "files": [["a", 1, 2]], "links": [["b", "a"]], "folders": ["d"], '
    b'"earlier": [["a", 1.5, 1e9]], "earlier_links": []}'
)
_JOURNAL = JournalEncoder()
_RECORDS = [
    b'{"journal":1,"asset":"x"}',
    b'{"size":100}',
    b'{"origin":0,"address":"h","etag":null,"modified":"m"}',
    b'{"piece":[0,10,"%s",0]}' % (b"0" * 32),
    b'{"void":[0,5]}',
]

TARGETS: dict[str, Target] = {
    "manifest": Target(
        manifest,
        (
            json.dumps({"version": "1.0", "expires": "2030-01-01T00:00:00Z", "assets": [_ENTRY]}, indent=2).encode(),
            json.dumps({"assets": [_ENTRY | {"fallbackUrls": ["s3://b/k", str(LFS_OBJECT)]}]}).encode(),
            json.dumps({"assets": [_ENTRY | {"minimal": _ENTRY, "extract": True, "fallbackUrls": []}, {}]}).encode(),
            b'{"version": 1e5, "assets": [], "x": [1.5, NaN, "\\ud800"]}',
        ),
    ),
    "local_path": Target(local_path, (b"models/base.bin", b"../x", b"a/CON.txt", "é/ｆ".encode(), b"a%2e%2e/b")),
    "placeholder": Target(
        placeholder,
        (_PLACEHOLDER.encode(), _PLACEHOLDER.encode().replace(b"\n", b"\r\n"), _PLACEHOLDER.encode() + b"\r"),
    ),
    "record_of_moves": Target(record_of_moves, (json.dumps({"version": "1.0", "assets": [_MOVED]}).encode(),)),
    "content_range": Target(content_range, (b"bytes 0-9/10", b"bytes */5", b"bytes 0-0/*", b"123")),
    "retry_after": Target(
        retry_after, (b"120", b"Wed, 21 Oct 2015 07:28:00 GMT\nWed, 21 Oct 2015 07:27:00 GMT", b"1e5")
    ),
    "response": Target(
        response,
        (
            b'206\ncontent-range: bytes 10-99/1000\ncontent-length: 90\netag: "x"',
            b"200\ncontent-length: 1000\ntransfer-encoding: chunked",
            b"302\nlocation: /x",
            b"503\nretry-after: 5",
        ),
    ),
    "redirect": Target(redirect, (b"/x", b"//h/x", b"https://u:p@h:1/x?y#z", b"file:///etc", b"http://[::1]/", b"?x")),
    "git_answer": Target(
        git_answer,
        (
            _pack((1, b"", b"tree\n"), (2, b"", b""), (3, b"", b"abc"), (7, _BLOB, b"\3\5\x90\3\2de")),
            _LINES + b"0001" + _LINES + b"0000",
            b"000dpackfile\n0007\1PA0006\2x0007\3no0000",
        ),
    ),
    "git_object": Target(
        git_object,
        (
            b"100644 a\0" + b"x" * 20 + b"120000 b\0" + b"x" * 20 + b"40000 c\0" + b"y" * 20,
            b"\x80\1\5\x90\3\2de",
            b"\x80\1\x07\x91\3\4\3xyz",
        ),
    ),
    "lfs_pointer": Target(lfs_pointer, (_POINTER, _POINTER.replace(b"\n", b"\r\n"), b"<!-- x --><!doctype html>")),
    "lfs_answer": Target(
        lfs_answer,
        (
            _lfs_answer(
                actions={"download": {"href": "https://s.example/x?y", "header": {"Authorization": "Basic x"}}}
            ),
            _lfs_answer(actions={"download": {"href": "http://127.0.0.1/", "expires_in": -1, "expires_at": "never"}}),
            _lfs_answer(error={"code": 404, "message": "gone"}),
        ),
    ),
    "lfs_address": Target(
        lfs_address, (str(LFS_OBJECT).removeprefix("lfs://").encode(), b"[::1]:8/x/" + DIGEST.encode())
    ),
    "foreign_text": Target(foreign_text, (b"x\x1b[2J", b"Authorization: x", b"http://u:p@h/x http://v@w/")),
    "journal": Target(
        journal,
        (
            b"\n".join(_RECORDS),
            _JOURNAL.header("x") + _JOURNAL.size(50) + _JOURNAL.piece(Piece(0, 9, "0" * 32, 0)) + _JOURNAL.void(0, 3),
        ),
    ),
    "state_files": Target(state_files, (b'["p","c",1,2,3,4,5]', encode_version("1.2"), b'"v1"', _TREE)),
    "zip": Target(archive("zip"), (_zip(zipfile.ZIP_STORED), _zip(zipfile.ZIP_DEFLATED), _zip(zipfile.ZIP_LZMA))),
    "tar": Target(archive("tar"), _TARS),
    "tar_gz": Target(archive("tar.gz"), tuple(_gzipped(tar) for tar in _TARS)),
    "tar_zst": Target(archive("tar.zst"), tuple(zstandard.compress(tar) for tar in _TARS)),
}
