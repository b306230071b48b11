"""Odd situations that are nobody's bug: rows of the document that no other module shows."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import os
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from grym_fetch import AssetManager, Settings
from grym_fetch.core.errors import ConnectionLost
from grym_fetch.errors import DigestMismatch, NotWritable, SyncFailed
from grym_fetch.testing import (
    Endless,
    Fault,
    FlipByte,
    LastModified,
    NoRanges,
    Reset,
    Status,
    Throttle,
    seeded_bytes,
)
from grym_fetch.testing.answers import Answer, RecordedRequest, plain_answer
from grym_fetch.testing.faults import AnswerFault, FramingFault
from tests.regressions.world import CONTENT, HALF, SIZE, World
from tests.support.fakes import read_some
from tests.support.invariants import SLACK, Watcher, watched
from tests.support.project import KIB, SMALL, ImpatientClock, Project
from tests.support.system import descriptors
from tests.support.transports import WAYS, Way

# -- servers ----------------------------------------------------------------------------------------------------------


@contextmanager
def abrupt_server(authority: trustme.CA, answer: bytes) -> Iterator[int]:
    """A TLS server that gives one answer and drops its connection without closing TLS; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as accepted:
            tls = context.wrap_socket(accepted, server_side=True)
            tls.recv(65_536)
            tls.sendall(answer)
            # The bare descriptor: no close_notify.
            os.close(tls.detach())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join()


@pytest.mark.posix
@pytest.mark.shows("N16")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sent", [1000, 999], ids=["all", "all but one"])
async def test_tls_that_ends_without_a_word_is_judged_by_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way, sent: int
) -> None:
    """If every byte is there, all is well. If one is missing, it is a break, though TLS ends the same way."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + CONTENT[:sent]
    received = bytearray()
    with abrupt_server(authority, answer) as port:
        transport = way()
        connection = transport.connection()
        response = await connection.get(f"https://127.0.0.1:{port}/", {})
        try:
            while data := await read_some(response):
                received += data
        except ConnectionLost:
            assert sent < 1000
        else:
            assert sent == 1000
        finally:
            response.close()
            await connection.aclose()
            await transport.aclose()
    assert received == CONTENT[:sent]


@dataclass(frozen=True)
class SignTheRange(AnswerFault):
    """Redirects to an address that is valid only for the requested range."""

    to: str

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return plain_answer(302, b"", {"Location": f"{self.to}?range={quote(request.range or '')}"})


@dataclass(frozen=True)
class OnlyTheSignedRange(AnswerFault):
    """Answers 403 to a range that the address was not signed for."""

    def applies(self, request: RecordedRequest, answer: Answer) -> bool:
        return request.query != f"range={quote(request.range or '')}"

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        return plain_answer(403, b"AuthorizationError: range is not the signed one\n")


@pytest.mark.shows("A7", "B50")
@pytest.mark.parametrize("size", [True, False], ids=["size known", "size unknown"])
async def test_an_address_that_is_signed_for_one_range_is_signed_anew_for_the_next(world: World, size: bool) -> None:
    """The remembered address refuses another range, and is resolved again for it: no failure, no loop."""
    target = world.serve(OnlyTheSignedRange(), path="/signed.bin")
    world.list(world.serve(SignTheRange(to=target.path)), size=size)
    await world.arrives()
    assert world.last is not None
    assert world.last.of("retry_scheduled") == []
    assert world.sent <= SIZE + SLACK


@dataclass(frozen=True)
class Digests(FramingFault):
    """Sends digests of its own: of the whole content (RFC 9530), and of something unknown."""

    repr_digest: str = ""

    def bend(self, answer: Answer, request: RecordedRequest, hit: int) -> Answer:
        nothing = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        fields = {
            "Content-Digest": f"sha-256=:{nothing}:",
            "Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg==",
            "X-Goog-Hash": "crc32c=AAAAAA==",
            "X-Amz-Checksum-Sha256": nothing,
        }
        if self.repr_digest:
            fields["Repr-Digest"] = self.repr_digest
        return replace(answer, headers=(*answer.headers, *fields.items()))


def repr_digest(content: bytes) -> str:
    """The field's value for this content."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


@pytest.mark.shows("C10")
@pytest.mark.parametrize("stated", ["", "sha-256=:rubbish:", "sha-256=:AAAA:", repr_digest(CONTENT)])
async def test_digests_of_a_server_never_bless(world: World, stated: str) -> None:
    """A server that states digests, right or unreadable, is trusted no more than one without."""
    file = world.serve(Digests(stated))
    world.list(file)
    await world.arrives()
    world.path.unlink()
    file.faults = (Digests(stated), FlipByte(at=1))
    assert isinstance(await world.fails(), DigestMismatch)


@pytest.mark.shows("C10", "C6")
@pytest.mark.parametrize("faults", [(), (NoRanges(),)], ids=["ranges", "one stream"])
async def test_a_server_that_has_another_content_by_its_own_word_is_left_at_once(
    world: World, faults: tuple[Fault, ...]
) -> None:
    """If its Repr-Digest is not the manifest's, no body is read, and a mirror is asked. Without one, it is an error."""
    other = world.serve(*faults, Digests(repr_digest(b"another")), path="/other.bin")
    world.list(other, world.serve())
    await world.arrives()
    assert world.last is not None
    assert world.last.of("run_finished")[0]["downloaded_bytes"] == SIZE
    world.path.unlink()
    world.list(other, world.serve(Digests(repr_digest(b"another"))))
    failure = str(await world.fails())
    assert f"2 addresses agree on sha256:{hashlib.sha256(b'another').hexdigest()}" in failure
    assert "manifest is probably wrong" in failure


@pytest.mark.shows("C6", "C3")
@pytest.mark.parametrize("size", [True, False], ids=["another checksum", "another size"])
async def test_mirrors_that_agree_cast_doubt_on_the_manifest(world: World, size: bool) -> None:
    """If two addresses have the same content and the manifest another, the error says which is probably wrong."""
    other = seeded_bytes(SIZE if size else SIZE - 1, seed=99)
    world.list(world.serve(content=other), world.serve(content=other, path="/b.bin"))
    failure = str(await world.fails(parallel=1))
    agreed = f"sha256:{hashlib.sha256(other).hexdigest()}" if size else f"{SIZE - 1} bytes"
    assert f"2 addresses agree on {agreed}: the {'checksum' if size else 'size'} in the manifest" in failure


@pytest.mark.shows("N9")
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("pinned", [True, False])
async def test_a_body_without_end_and_without_a_known_size_is_bounded(
    world: World, chunked: bool, pinned: bool
) -> None:
    """Without a length and without an end, the address is left for a mirror once the maximum has come."""
    endless = world.serve(NoRanges(), Endless(chunked=chunked), path="/endless.bin")
    world.list(endless, size=False, pinned=pinned)
    await world.fails(allow_unpinned=True, may_lose=SMALL.unsized)
    assert world.last is not None
    assert world.last.of("run_finished")[0]["downloaded_bytes"] in ((SMALL.unsized,) if chunked or pinned else (0,))
    if pinned:
        world.list(endless, world.serve(), size=False)
        await world.arrives(may_lose=SMALL.unsized)


# -- the disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.posix
@pytest.mark.shows("C11")
async def test_a_disk_that_changes_bytes_is_found_by_a_full_check(world: World) -> None:
    """Bytes that came in order are hashed as they came, as the page says; `--full` finds what the disk did to them."""
    world.asset()
    pwrite = os.pwrite

    def flip(descriptor: int, data: bytes | memoryview, at: int) -> int:
        return pwrite(descriptor, bytes([data[0] ^ 1]) + bytes(data[1:]) if at == 0 else data, at)

    async with world.project.manager(parallel=1) as manager:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "pwrite", flip)
            await manager.get_asset_path("a")
        status = await manager.check_asset("a", full=True)
        assert not status.valid
        assert (await manager.get_asset_path("a")).read_bytes() == CONTENT


@pytest.mark.shows("D17")
@pytest.mark.sweep
async def test_hundreds_of_small_files_need_few_descriptors(world: World) -> None:
    """Four connections and a few files at a time are enough for any number; none is requested twice."""
    for number in range(300):
        content = seeded_bytes(number, seed=number)
        world.project.entries.append({"id": f"n{number}", "url": world.serve(content=content, path=f"/{number}").url})
        world.project.entries[-1] |= {"localPath": f"{number % 7}/{number}", "required": True, "size": number}
        world.project.entries[-1]["checksum"] = world.server.add(f"/{number}", content).sha256
    world.project.write()
    open_now = descriptors()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 60, limits[1]))
    try:
        async with asyncio.timeout(60), world.project.manager() as manager:
            report = await manager.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(report.verified) == 300
    assert world.server.stats.most_open_connections <= 4
    assert world.asked <= 310
    assert (world.project.assets / str(299 % 7) / "299").read_bytes() == seeded_bytes(299, seed=299)


@pytest.mark.shows("D22")
async def test_a_file_is_as_old_as_its_arrival(world: World) -> None:
    """The server's Last-Modified does not tell when the file arrived here."""
    world.asset(LastModified("Tue, 01 Jan 2019 00:00:00 GMT"))
    before = time.time() - 5
    await world.arrives()
    assert world.path.stat().st_mtime >= before


@pytest.mark.posix
@pytest.mark.shows("X7", "S5")
async def test_a_folder_of_another_user_is_named_and_its_files_are_used(world: World) -> None:
    """A user who may not write there gets the right files; for missing ones an error names the folder."""
    world.asset()
    await world.arrives()
    open_ = os.open

    def denied(path: object, flags: int, *args: int, **more: int | None) -> int:
        above = os.readlink(f"/proc/self/fd/{more['dir_fd']}") if more.get("dir_fd") is not None else ""
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and ".grym-fetch" in f"{above}/{path}":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return open_(path, flags, *args, **more)  # type: ignore[arg-type]  # what os.open takes

    world.forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", denied)
        assert await world.sync() is None
        assert world.asked == 0
        world.path.unlink()
        failure = await world.fails()
    assert isinstance(failure, NotWritable)
    assert ".grym-fetch" in failure.path or "models/a.bin" in failure.path


# -- clocks and manifests ---------------------------------------------------------------------------------------------


class JumpingClock(ImpatientClock):
    """Its wall clock jumps by years, forwards and backwards, each time it is read."""

    looks = 0

    def wall(self) -> float:
        self.looks += 1
        return super().wall() + (3e8 if self.looks % 2 else -3e8)


@pytest.mark.shows("P12")
async def test_a_wall_clock_that_jumps_by_years_decides_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """During breaks, delays and a busy server the wall clock keeps being set: nobody waits or gives up for that."""
    clock = JumpingClock()
    real, looks = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + (3e8 if next(looks) % 2 else -3e8))
    world.asset(Reset(after=50_000, times=2), Status(503, headers={"Retry-After": "3"}, times=1))
    await world.arrives(clock=clock)
    assert world.last is not None
    [verified] = world.last.of("asset_verified")
    assert isinstance(verified["seconds"], float)
    assert 0 <= verified["seconds"] < 100
    assert sum(clock.slept) < 100


@pytest.mark.shows("P11", "P12")
async def test_a_machine_that_sleeps_goes_on_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two reads the clock jumps, as when a lid is opened: at most one failure, and no bytes lost."""
    world.asset(Throttle(rate=300 * KIB))
    real, slept = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + slept[0])

    async def fall_asleep() -> None:
        await world.server.stats.until(lambda stats: stats.body_bytes_sent > HALF)
        slept[0] = 10.0

    sleeping = asyncio.create_task(fall_asleep())
    await world.arrives(parallel=2)
    await sleeping
    assert world.last is not None
    assert len(world.last.of("retry_scheduled")) <= 1
    assert world.last.of("asset_restarted") == []
    assert world.sent <= SIZE + SLACK


@pytest.mark.shows("X5")
async def test_two_manifests_that_want_other_content_in_one_place_do_not_undo_each_other(
    world: World, tmp_path: Path
) -> None:
    """Two at once, one place, two contents: the file is one of them, never a mixture, and the other run says why."""
    other = Project(tmp_path / "other")
    theirs = seeded_bytes(SIZE, seed=23)
    world.asset()
    other.add("a", [world.serve(content=theirs, path="/theirs.bin").url], theirs)
    second = AssetManager(
        other.manifest,
        assets_dir=world.project.assets,
        settings=Settings(sizes=SMALL),
        environ={},
        clock=ImpatientClock(),
    )
    with watched(Watcher(world.path, CONTENT, theirs)):
        async with asyncio.timeout(60), world.project.manager() as ours, second:
            ends = await asyncio.gather(ours.sync(), second.sync(), return_exceptions=True)
            assert world.path.read_bytes() in (CONTENT, theirs)
            for end in ends:
                if isinstance(end, BaseException):
                    assert isinstance(end, SyncFailed)
                    assert str(other.manifest) in str(end)
                    assert str(world.project.manifest) in str(end)
            with pytest.raises(SyncFailed, match="with other content; change one's localPath"):
                await (second if world.path.read_bytes() == CONTENT else ours).sync()
    assert world.project.staged() == []
