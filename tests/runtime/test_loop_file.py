"""An asset as a blocking file: whatever takes a binary file takes it."""

from __future__ import annotations

import gc
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from grym_fetch import Settings
from grym_fetch.blocking import AssetFile, AssetManager
from grym_fetch.errors import AssetMissing, MirrorsExhausted, UnverifiedRead
from grym_fetch.testing import AssetServer, Gate, Hold, Status, seeded_bytes, serve_in_thread
from tests.engine.test_reader import PIECE, pieces_of
from tests.support.project import SMALL, ImpatientClock, Project


def _zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("big", seeded_bytes(12 * PIECE, seed=1))
        archive.writestr("small", b"hello")
    return made.getvalue()


CONTENT = _zip()


@pytest.fixture(scope="module")
def server() -> Iterator[AssetServer]:
    with serve_in_thread() as running:
        yield running


@pytest.fixture
def manager(tmp_path: Path, server: AssetServer) -> Iterator[AssetManager]:
    """A manager whose asset ``a`` is a zip archive."""
    server.add("/a.bin", CONTENT)
    with manager_of(tmp_path, server, CONTENT) as made:
        yield made


def manager_of(root: Path, server: AssetServer, content: bytes, *, pieces: bool = True) -> AssetManager:
    """A manager of a project with the asset ``a``."""
    project = Project(root / "project")
    entry = {"pieces": {**pieces_of(content)}} if pieces else {}
    project.add("a", [server.url("/a.bin")], content, **entry)  # type: ignore[arg-type]  # further keys
    return AssetManager(project.manifest, settings=Settings(sizes=SMALL, retries=0), environ={}, clock=ImpatientClock())


def test_zipfile(manager: AssetManager) -> None:
    """A member is read without the rest."""
    with manager.open_asset("a") as file, zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["big", "small"]
        assert archive.read("small") == b"hello"
        assert archive.testzip() is None


def test_what_a_raw_file_is(manager: AssetManager) -> None:
    """It reads, seeks and tells as a file on disk, also through a buffer; and does not write."""
    with manager.open_asset("a") as file:
        assert isinstance(file, io.RawIOBase)
        assert (file.readable(), file.seekable(), file.writable(), file.size) == (True, True, False, len(CONTENT))
        assert file.read(10) == CONTENT[:10]
        assert (file.seek(-4, io.SEEK_END), file.tell()) == (len(CONTENT) - 4, len(CONTENT) - 4)
        assert file.read() == CONTENT[-4:]
        assert file.read(1) == b""
        with pytest.raises(ValueError, match="cannot seek"):
            file.seek(-1)
        file.seek(0)
        assert io.BufferedReader(file, 1000).read() == CONTENT
    assert file.closed
    for use in (file.tell, file.read, lambda: file.seek(0)):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_a_tar_stream_that_is_there(tmp_path: Path, server: AssetServer) -> None:
    """Once the asset is verified, reads go to its file and not through the loop."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        member = tarfile.TarInfo("member")
        member.size = 3 * PIECE
        archive.addfile(member, io.BytesIO(seeded_bytes(3 * PIECE, seed=2)))
    server.add("/a.bin", made.getvalue())
    with manager_of(tmp_path, server, made.getvalue(), pieces=False) as manager:
        with pytest.raises(UnverifiedRead):
            manager.open_asset("a")
        manager.get_asset_path("a")
        with manager.open_asset("a") as file, tarfile.open(fileobj=file) as archive:
            extracted = archive.extractfile("member")
            assert extracted is not None
            assert extracted.read() == seeded_bytes(3 * PIECE, seed=2)


def test_a_failure_is_no_end(tmp_path: Path, server: AssetServer) -> None:
    """A read raises what the download raised."""
    server.add("/a.bin", CONTENT, faults=[Status(404, skip=1)])
    with (
        manager_of(tmp_path, server, CONTENT) as manager,
        manager.open_asset("a") as file,
        pytest.raises(MirrorsExhausted),
    ):
        file.read()


def test_a_manager_that_is_closed_ends_a_read(tmp_path: Path, server: AssetServer) -> None:
    """In another thread; the file can still be closed."""
    server.add("/a.bin", CONTENT, faults=[Hold(Gate(), at=PIECE)])
    manager, errors = manager_of(tmp_path, server, CONTENT), list[BaseException]()
    file = manager.open_asset("a")
    file.read(1)

    def read() -> None:
        try:
            file.read()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    manager.close()
    thread.join()
    [error] = errors
    assert isinstance(error, AssetMissing | CancelledError)
    with pytest.raises(CancelledError, match="the manager was closed"):
        file.read(2 * PIECE)
    file.close()
    file.close()


def test_a_forgotten_file_is_closed(manager: AssetManager, unhandled: list[object]) -> None:
    """Its download stops, as if it had been closed; and one that could not be opened leaves nothing behind."""
    file = manager.open_asset("a")
    assert isinstance(file, AssetFile)
    del file
    gc.collect()
    with pytest.raises(Exception, match="nothing"):
        manager.open_asset("nothing")
    gc.collect()
    assert not unhandled


@pytest.mark.package("numpy")
@pytest.mark.package("safetensors")
def test_numpy_and_safetensors(tmp_path: Path, server: AssetServer) -> None:
    """They read arrays from it; a safetensors header is there before the tensors are."""
    import numpy as np
    import safetensors.numpy

    array: Any = np.arange(4 * PIECE, dtype=np.uint8)
    content = safetensors.numpy.save({"weights": array})
    gate = Gate()
    server.add("/a.bin", content, faults=[Hold(gate, at=PIECE)])
    with manager_of(tmp_path, server, content) as manager, manager.open_asset("a") as file:
        length = int.from_bytes(file.read(8), "little")
        assert json.loads(file.read(length))["weights"]["shape"] == [4 * PIECE]
        gate.open()
        file.seek(0)
        assert (safetensors.numpy.load(file.read())["weights"] == array).all()
        file.seek(8 + length)
        assert (np.frombuffer(file.read(), dtype=np.uint8) == array).all()
