"""The page about our own folders lists every name that is ever made in them."""

from __future__ import annotations

import io
import os
import re
import tarfile
from pathlib import Path

import pytest

from grym_fetch import AssetManager, Settings
from grym_fetch.testing import SeededContent, ServedFile, WrongFile, serve_in_thread
from tests.support.project import Project

PAGE = Path(__file__).parents[2] / "docs" / "how-it-works.md"
PLACEHOLDERS = {"number": r"\d+", "process": r"[\w-]+", "random": r"\w+", "user": r"\d+"}
"""What they may be; any other is a hash."""


def listed() -> set[str]:
    """Each path that the page lists below a folder of ours, and the folders on the way, as patterns."""
    text = PAGE.read_text(encoding="utf-8")
    paths = re.findall(r"`(users/\S*)`", text)
    for block in re.findall(
        r"^```text\n\S*grym-fetch/[^\n]*\n(.*?)^```", text.replace("<assets folder", "<"), re.MULTILINE | re.DOTALL
    ):
        above: list[str] = []
        for line in block.splitlines():
            names = line[:52].split()
            above[(len(line) - len(line.lstrip())) // 4 - 1 :] = [names[0].rstrip("/")]
            paths += ["/".join([*above[:-1], name.rstrip("/")]) for name in names]
    patterns = [
        re.sub(r"<(\w+)>", lambda m: PLACEHOLDERS.get(m[1], "[0-9a-f]{16,}"), re.escape(path)) for path in paths
    ]
    return {"/".join(pattern.split("/")[:depth]) for pattern in patterns for depth in range(1, pattern.count("/") + 2)}


def recorded(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every path that is made from now on, also for a moment."""
    made: set[str] = set()
    true_open, true_mkdir = os.open, os.mkdir

    def record(name: object, folder: int | None) -> None:
        if isinstance(name, str):
            made.add(name if folder is None else f"{os.readlink(f'/proc/self/fd/{folder}')}/{name}")

    def open_(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            record(path, dir_fd)
        return true_open(path, flags, mode, dir_fd=dir_fd)

    def mkdir(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        record(path, dir_fd)
        true_mkdir(path, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "mkdir", mkdir)
    return made


@pytest.mark.sweep
async def test_each_name_in_our_folders_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large and small files, an archive, a mirror that lies, the store, and another project that reads there."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    projects = [Project(tmp_path / name) for name in ("one", "two", "three")]
    store = str(tmp_path / "store")
    with serve_in_thread() as server:
        files: dict[str, list[ServedFile]] = {
            f"small-{n}": [server.add(f"/{n}", SeededContent(1000, seed=n))] for n in range(5)
        }
        lie = server.add("/lie", SeededContent(3_000_000, seed=9), faults=[WrongFile()])
        files["large"] = [lie, server.add("/large", SeededContent(3_000_000, seed=9))]
        files["archive"] = [server.add("/a.tar", out.getvalue())]
        for project in projects:
            for name, served in files.items():
                addresses = [each.url for each in served]
                if name == "archive":
                    project.add(name, addresses, served[0].content, localPath="a.tar", extract=True)
                else:
                    project.add(name, addresses, served[0].content)
        made = recorded(monkeypatch)
        for project in projects:
            settings = Settings(store=False if project is projects[2] else store, link_mode="copy")
            async with AssetManager(
                project.manifest, external_assets_dir=projects[0].assets, settings=settings
            ) as manager:
                await manager.sync(all=True)
    below = [re.split(r"/\.grym-fetch/|/state/grym-fetch/[0-9a-f]+/", path)[1:] for path in made]
    # Not a file under another name for the moment until its rename, nor what is in an archive.
    names = {path[0] for path in below if path and not re.search(r"\.tmp$|/unpack/", path[0])}
    patterns = listed()
    assert sorted(name for name in names if not any(re.fullmatch(pattern, name) for pattern in patterns)) == []
    own = f"user-{os.geteuid()}"
    assert {f"{own}/readers", f"{own}/manifests", f"{own}/wrong-origins.log", "assets-folder"} <= names
    assert any(name.endswith("/taken") for name in names)
