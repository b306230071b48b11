"""Every kind of repository goes all the way: look, move out, commit, clone, set up, bring back.

At the end the bytes are the same, `git fsck` says what it said before, and nothing that the repository configures has
run: there is a trap in place of every program that git could start. Each refusal says what to do instead.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from grym_fetch.testing import seeded_bytes
from tests.end_to_end.command import Done, run
from tests.repo.hostile import ATTRIBUTES, Trap, armed, sign
from tests.repo.story import commit, git, repository, write

FILES = {"a.bin": seeded_bytes(5000, seed=1), "models/b.dat": seeded_bytes(3000, seed=2)}
SMALL = {"small.bin": b"small", "models/tiny.dat": b"tiny"}
LIMIT = "0.001"
"""In MB: about a thousand bytes."""


@dataclass(frozen=True)
class Scene:
    """A repository. ``target`` is where its large files may go, None for the default place.

    ``origin`` is what others clone, if that is not the repository itself.
    """

    root: Path
    target: Path | None = None
    origin: Path | None = None


def made(folder: Path) -> Path:
    """A repository with small and large files, on two days, the last commit signed."""
    root = repository(folder)
    for name, content in SMALL.items():
        write(root, name, content)
    write(root, "a.bin", seeded_bytes(4000, seed=9))
    write(root, ".gitattributes", ATTRIBUTES)
    commit(root, day=1)
    for name, content in FILES.items():
        write(root, name, content)
    commit(root, day=2)
    sign(root)
    return root


def plain(folder: Path) -> Scene:
    return Scene(made(folder / "repo"))


def bare_inside(folder: Path) -> Scene:
    """The work tree contains a bare repository with packs larger than the limit."""
    root = made(folder / "repo")
    git(folder, "clone", "-q", "--bare", str(root), str(root / "mirror"))
    git(root / "mirror", "repack", "-q", "-a", "-d")
    write(root, ".gitignore", b"/mirror/objects/info/\n")
    commit(root, day=3)
    return Scene(root)


def separate_git_dir(folder: Path) -> Scene:
    root = made(folder / "repo")
    git(root, "init", "-q", "--separate-git-dir", str(folder / "store"))
    return Scene(root)


def linked_worktree(folder: Path) -> Scene:
    root = made(folder / "repo")
    git(root, "worktree", "add", "-q", "-b", "side", str(folder / "far/tree"))
    return Scene(folder / "far/tree")


def submodule(folder: Path) -> Scene:
    """The default place lies in the surrounding repository."""
    made(folder / "source")
    outer = made(folder / "outer")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(folder / "source"), "sub")
    commit(outer, day=3)
    return Scene(outer / "sub", target=folder / "big")


def sparse(folder: Path) -> Scene:
    root = made(folder / "repo")
    write(root, "elsewhere/c.bin", seeded_bytes(2000, seed=3))
    commit(root, day=3)
    git(root, "sparse-checkout", "set", "models")
    return Scene(root)


def shallow(folder: Path) -> Scene:
    made(folder / "source")
    git(folder, "clone", "-q", "--depth", "1", f"file://{folder}/source", str(folder / "repo"))
    return Scene(folder / "repo")


def partial(folder: Path) -> Scene:
    """Old versions of large files are missing; others clone the complete repository that it comes from."""
    source = made(folder / "source")
    git(folder, "clone", "-q", "--bare", str(source), str(folder / "hub.git"))
    git(folder / "hub.git", "config", "uploadpack.allowFilter", "true")
    git(folder, "clone", "-q", "--filter=blob:none", f"file://{folder}/hub.git", str(folder / "repo"))
    return Scene(folder / "repo", origin=folder / "hub.git")


def lfs(folder: Path) -> Scene:
    """A third large file is in Git LFS: git has its pointer, so it stays."""
    root = made(folder / "repo")
    write(root, ".gitattributes", ATTRIBUTES + b"kept.bin filter=lfs\n")
    write(root, "kept.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9000\n")
    commit(root, day=3)
    write(root, "kept.bin", seeded_bytes(9000, seed=4))
    git(root, "update-index", "--assume-unchanged", "kept.bin")
    return Scene(root)


def unborn(folder: Path) -> Scene:
    root = repository(folder / "repo")
    for name, content in (SMALL | FILES).items():
        write(root, name, content)
    return Scene(root)


def detached(folder: Path) -> Scene:
    root = made(folder / "repo")
    git(root, "checkout", "-q", "--detach")
    return Scene(root)


def alternates(folder: Path) -> Scene:
    made(folder / "source")
    git(folder, "clone", "-q", "--shared", str(folder / "source"), str(folder / "repo"))
    return Scene(folder / "repo")


def sha256(folder: Path) -> Scene:
    root = folder / "repo"
    root.mkdir(parents=True)
    git(root, "init", "-q", "-b", "main", "--object-format=sha256")
    for name, content in (SMALL | FILES).items():
        write(root, name, content)
    commit(root)
    return Scene(root)


KINDS: list[Callable[[Path], Scene]] = [
    plain, bare_inside, separate_git_dir, linked_worktree, submodule, sparse, shallow, partial, lfs, unborn, detached,
    alternates, sha256,
]  # fmt: skip
CASES = [
    pytest.param(
        kind,
        is_hostile,
        id=f"{kind.__name__}-{'hostile' if is_hostile else 'honest'}",
        marks=pytest.mark.sweep,
    )
    for kind in KINDS
    # A trap is set only while a command of ours runs: elsewhere, the honest kind would show nothing more.
    for is_hostile in ((False, True) if kind is plain else (True,))
]


class Visitor:
    """Runs our commands in repositories whose traps are set."""

    def __init__(self, trap: Trap, *, is_hostile: bool) -> None:
        self._trap = trap
        self._is_hostile = is_hostile

    def run(self, root: Path, *arguments: str, code: int = 0) -> Done:
        """Run a command; nothing configured by the repository runs, and it ends with this code."""
        with self._armed(root):
            done = run(root, *arguments, GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1")
            assert self._trap.ran() == ""
        assert done.code == code, done
        assert "Traceback" not in done.err
        return done

    @contextmanager
    def _armed(self, root: Path) -> Iterator[None]:
        if not self._is_hostile:
            yield
            return
        with armed(root / git(root, "rev-parse", "--git-common-dir"), self._trap):
            yield


def checked(folder: Path) -> str:
    """The output of `git fsck`, which must not be an error."""
    done = subprocess.run(["git", "fsck", "--strict", "--no-dangling"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done
    return done.stdout


def content(root: Path) -> dict[str, bytes]:
    """The files of the scene that exist."""
    return {name: (root / name).read_bytes() for name in SMALL | FILES if (root / name).exists()}


@pytest.mark.shows("S17", "S18", "S21")
@pytest.mark.parametrize(("build", "is_hostile"), CASES)
def test_the_whole_way(build: Callable[[Path], Scene], is_hostile: bool, tmp_path: Path) -> None:
    """Out of a repository, back into it and into a clone: the same bytes, a sound repository, and nothing ran."""
    scene = build(tmp_path / "home")
    root = scene.root
    visit = Visitor(Trap(tmp_path / "trap"), is_hostile=is_hostile)
    before, sound = content(root), checked(root)
    assert before.keys() >= {"a.bin", "models/b.dat"}

    if build is partial:
        assert "--refetch --no-filter origin" in visit.run(root, "identify", LIMIT, "--history", code=2).err
    else:
        visit.run(root, "identify", LIMIT, "--history")
    (looked,) = visit.run(root, "identify", LIMIT, "--json").events
    assert looked["files"] == [{"path": name, "size": len(FILES[name])} for name in FILES]

    where: list[str] = []
    if scene.target is not None:
        refused = visit.run(root, "clean", LIMIT, "-y", code=2)
        assert f"name {tmp_path}/home/assets, or have that repository ignore" in refused.err
        assert content(root) == before
        where = [".", str(scene.target)]
    moved = visit.run(root, "clean", LIMIT, *where, "-y", "--gitignore")
    assert moved.err.splitlines() == [f"moved: {name}" for name in FILES]
    assert content(root) == {name: before[name] for name in before if name in SMALL}
    commit(root, day=5)
    assert git(root, "status", "--porcelain") == ""
    if scene.origin is not None:
        git(root, "push", "-q", "origin", "HEAD")
    assert checked(root) == sound

    clone = tmp_path / "elsewhere/clone"
    git(tmp_path, "clone", "-q", str(scene.origin or root), str(clone))
    sound = checked(clone)
    visit.run(clone, "setup", "--skip-assets")
    assert "2 files of 7.8 KiB were moved out of git: " in visit.run(clone, "setup", "--skip-assets").out
    target = scene.target or next(folder for folder in (tmp_path / "home").rglob("asset-manifest.json")).parent
    visit.run(clone, "restore", "--all", "--external-assets-dir", str(target))
    assert content(clone) == SMALL | FILES
    assert checked(clone) == sound

    named = ["--external-assets-dir", str(target)] if scene.target is not None else []
    visit.run(root, "restore", "--all", *named)
    assert content(root) == before
    # And out again: the files brought back are ignored by now, and still seen.
    assert visit.run(root, "clean", LIMIT, *where, "-y").err.splitlines() == [f"moved: {name}" for name in FILES]
    assert git(root, "status", "--porcelain") == ""
    if build is lfs:
        assert (root / "kept.bin").stat().st_size == 9000
    if build is bare_inside:
        checked(root / "mirror")


@pytest.mark.shows("S17", "S18")
@pytest.mark.sweep
def test_a_bare_repository(tmp_path: Path) -> None:
    """Its history can be looked through; everything else is refused with what to do, or finds nothing."""
    git(tmp_path, "clone", "-q", "--bare", str(made(tmp_path / "source")), str(tmp_path / "bare"))
    bare = tmp_path / "bare"
    git(bare, "repack", "-q", "-a", "-d")
    sound, trap = checked(bare), Trap(tmp_path / "trap")
    visit = Visitor(trap, is_hostile=True)
    looked = visit.run(bare, "identify", LIMIT, "--history").out
    assert "not looked into, a repository of its own: ." in looked
    assert "a.bin" in looked
    assert "name a work tree, or clean a clone of it" in visit.run(bare, "clean", LIMIT, "-y", code=2).err
    assert visit.run(bare, "restore", "--all").err == "there is no placeholder in this repository: nothing to restore\n"
    assert checked(bare) == sound
