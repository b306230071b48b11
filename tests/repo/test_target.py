"""Where large files may go, and where a repository is, whatever its folders are called."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from grym_fetch.core.errors import RepositoryError
from grym_fetch.manifest_files.project import Project
from grym_fetch.repo.clean import plan_clean
from grym_fetch.repo.git import GitUnusable
from grym_fetch.repo.target import unnamed_folders, usual_folders
from grym_fetch.testing import seeded_bytes
from tests.repo.story import LIMIT, clean, commit, git, repository, write
from tests.support.other_user import needs_root

A = seeded_bytes(5000, seed=1)
NOBODY = 12345


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a committed large file."""
    root = repository(tmp_path / "home/repo")
    write(root, "a.bin", A)
    commit(root)
    return root


def give_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder another user's: give it away as root, otherwise pretend to be somebody else."""
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)


def packed(folder: Path) -> Path:
    """A bare repository with a pack."""
    source = repository(folder.with_name("source"))
    write(source, "big.bin", A)
    commit(source)
    git(source, "repack", "-q", "-a", "-d")
    git(source, "clone", "-q", "--bare", str(source), str(folder))
    git(folder, "repack", "-q", "-a", "-d")
    return folder


# --- git's own ----------------------------------------------------------------------------------------------


@pytest.mark.shows("S17")
@pytest.mark.parametrize("name", ["vendor/lib.git", "vendor/anything", "a/.hidden"])
def test_a_repository_without_a_work_tree_is_not_entered(root: Path, tmp_path: Path, name: str) -> None:
    """A folder with HEAD, objects and refs is a repository, whatever it is called: its packs stay where they are."""
    bare = packed(tmp_path / "bare")
    (root / name).parent.mkdir(exist_ok=True)
    bare.rename(root / name)
    plan = plan_clean(root, root, tmp_path / "out", LIMIT, allow_dirty=True)
    assert [move.path for move in plan.moves] == ["a.bin"]
    assert plan.repositories == (f"{name}/",)
    clean(root, tmp_path / "out", allow_dirty=True)
    git(root / name, "fsck", "--strict")


@pytest.mark.shows("S17")
@pytest.mark.parametrize("inside", [".", "objects", "objects/pack", "refs/heads"])
def test_a_repository_itself_is_refused(tmp_path: Path, inside: str) -> None:
    """Neither a bare repository, nor a folder in it, nor the store of a separate git dir can be cleaned."""
    bare = packed(tmp_path / "bare")
    with pytest.raises(RepositoryError, match=r"bare is git's own folder.*name a work tree"):
        plan_clean(bare, bare / inside, tmp_path / "out", LIMIT)
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "-q", "--separate-git-dir", str(tmp_path / "store"))
    with pytest.raises(RepositoryError, match="store is git's own"):
        plan_clean(tmp_path, tmp_path / "store" / inside, tmp_path / "out", LIMIT)


@pytest.mark.shows("S17")
def test_objects_that_several_repositories_share_stay(root: Path, tmp_path: Path) -> None:
    """A folder that only holds objects, like one named in alternates, belongs to git, too."""
    pool = packed(tmp_path / "bare") / "objects"
    pool.rename(root / "pool")
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    assert [move.path for move in plan.moves] == ["a.bin"]
    assert plan.repositories == ("pool/",)
    for name in ("info/notes.bin", "pack/goods.bin"):
        write(root, f"shop/{name}", A)
    assert "shop/pack/goods.bin" in {move.path for move in plan_clean(root, root, tmp_path / "out", LIMIT).moves}


@pytest.mark.shows("S17")
@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_loose_objects_stay(root: Path, tmp_path: Path, form: str) -> None:
    """A pool that was never packed has its objects in folders of two digits; other folders named so can be moved."""
    made = tmp_path / "made"
    made.mkdir()
    git(made, "init", "-q", f"--object-format={form}")
    write(made, "big.bin", seeded_bytes(6000, seed=3))
    commit(made)
    (made / ".git/objects").rename(root / "pool")
    for name in ("shop/ab/goods.bin", "shop/cd/more.bin", "other/ab/0123456789.bin"):
        write(root, name, A)
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    assert {move.path for move in plan.moves} == {
        "a.bin", "shop/ab/goods.bin", "shop/cd/more.bin", "other/ab/0123456789.bin"
    }  # fmt: skip
    assert plan.repositories == ("pool/",)
    (loose,) = [path for path in (root / "pool").rglob("*") if path.is_file() and path.stat().st_size > LIMIT]
    with pytest.raises(RepositoryError, match="pool is git's own"):
        plan_clean(root, loose.parent, tmp_path / "out", LIMIT)


@pytest.mark.shows("S22")
def test_a_work_tree_in_a_bare_repository(tmp_path: Path) -> None:
    """Some users keep a work tree for each branch in the bare repository itself: those are cleaned, and it is not."""
    bare = packed(tmp_path / "bare")
    git(bare, "worktree", "add", "-q", "-b", "side", str(bare / "side"))
    plan = plan_clean(bare / "side", bare / "side", usual_folders(bare / "side")[0], LIMIT)
    assert [move.path for move in plan.moves] == ["big.bin"]
    assert plan.target == tmp_path / "assets"
    with pytest.raises(RepositoryError, match="bare is git's own"):
        plan_clean(bare / "side", bare, tmp_path / "out", LIMIT)


@pytest.mark.shows("S22")
def test_a_bare_repository_beside_its_work_trees(tmp_path: Path) -> None:
    """A .git that leads to a bare repository puts no work tree around the default folder: nothing commits it."""
    (tmp_path / "lay").mkdir()
    packed(tmp_path / "bare").rename(tmp_path / "lay/.bare")
    write(tmp_path, "lay/.git", b"gitdir: ./.bare\n")
    side = tmp_path / "lay/side"
    git(tmp_path / "lay", "worktree", "add", "-q", "-b", "side", str(side))
    plan = plan_clean(side, side, usual_folders(side)[0], LIMIT)
    assert ([move.path for move in plan.moves], plan.target) == (["big.bin"], tmp_path / "lay/assets")


@pytest.mark.shows("S17")
def test_a_half_made_submodule_is_not_entered(root: Path, tmp_path: Path) -> None:
    """Files below a submodule that was never set up keep git from saying what is ignored; they are left alone."""
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{git(root, 'rev-parse', 'HEAD')},sub/module")
    write(root, "sub/module/deep/b.bin", A)
    write(root, "ignored.bin", A)
    write(root, ".gitignore", b"/ignored.bin\n")
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    assert [move.path for move in plan.moves] == ["a.bin"]
    assert plan.repositories == ("sub/module/",)


# --- the target ---------------------------------------------------------------------------------------------


@pytest.mark.shows("S17")
def test_a_target_that_another_repository_would_commit(tmp_path: Path) -> None:
    """The default folder of a submodule is in the surrounding repository: refused, with the folder to use instead."""
    outer = repository(tmp_path / "home/outer")
    root = repository(outer / "sub")
    write(root, "a.bin", A)
    commit(root)
    with pytest.raises(RepositoryError, match=rf"next `git add -A`.*name {tmp_path}/home/assets"):
        plan_clean(root, root, outer / "assets", LIMIT)
    write(outer, ".gitignore", b"/assets/\n")
    assert len(plan_clean(root, root, outer / "assets", LIMIT).moves) == 1
    write(outer, ".gitignore", b"")
    write(outer, "assets/.gitignore", b"*\n!.gitignore\n!asset-manifest.json\n")  # as setup creates it
    clean(root, outer / "assets")
    git(outer, "add", "-A", "--", "assets", ".gitignore")
    assert git(outer, "ls-files", "assets").splitlines() == ["assets/.gitignore", "assets/asset-manifest.json"]


@pytest.mark.shows("S17")
def test_a_target_around_which_git_does_not_answer(root: Path, tmp_path: Path) -> None:
    """If it cannot be known whether the target would be committed, it is refused."""
    write(tmp_path, "other/.git", b"gitdir: /nowhere\n")
    with pytest.raises(GitUnusable, match="not known whether git would see the target; name another"):
        plan_clean(root, root, tmp_path / "other/out", LIMIT)


@pytest.mark.shows("S17")
@pytest.mark.parametrize("place", ["home/repo", "home/repo/a/new", "home/repo/.git"])
def test_a_target_inside_the_repository(root: Path, tmp_path: Path, place: str) -> None:
    """Git would take the large files in again."""
    with pytest.raises(RepositoryError, match="lies inside the repository; name a folder outside"):
        plan_clean(root, root, tmp_path / place, LIMIT)


@pytest.mark.shows("S17")
def test_a_target_beside_the_folder_that_is_searched(root: Path) -> None:
    """Only a part of the repository is searched, but git takes in all of it."""
    (root / "a").mkdir(exist_ok=True)
    with pytest.raises(RepositoryError, match="lies inside the repository; name a folder outside"):
        plan_clean(root, root / "a", root / "b", LIMIT)


@pytest.mark.shows("S17")
@pytest.mark.parametrize("place", ["bare", "bare/objects/new", "home/other/.git/modules"])
def test_a_target_in_a_repository(root: Path, tmp_path: Path, place: str) -> None:
    """Nothing is put among git's own files."""
    packed(tmp_path / "bare")
    repository(tmp_path / "home/other")
    with pytest.raises(RepositoryError, match="which is git's own; name another folder"):
        plan_clean(root, root, tmp_path / place, LIMIT)


@pytest.mark.shows("S17")
def test_a_target_of_another_user(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose owner could remove the files, or put others in their place, is refused."""
    (tmp_path / "out").mkdir()
    give_away(tmp_path / "out", monkeypatch)
    with pytest.raises(RepositoryError, match=r"belongs to another user.*name a folder of your own"):
        plan_clean(root, root, tmp_path / "out", LIMIT)


@needs_root
@pytest.mark.shows("S17")
@pytest.mark.parametrize(("mode", "is_fine"), [(0o2775, True), (0o777, True), (0o755, False), (0o2755, False)])
def test_a_shared_target(root: Path, tmp_path: Path, mode: int, is_fine: bool) -> None:
    """A folder that its owner lets others write to is accepted only if it is named."""
    for folder in (tmp_path / "out", tmp_path / "home/assets"):
        folder.mkdir()
        os.chown(folder, NOBODY, NOBODY)
        folder.chmod(mode)
    with nullcontext() if is_fine else pytest.raises(RepositoryError, match="belongs to another user"):
        plan_clean(root, root, tmp_path / "out", LIMIT)
    with pytest.raises(RepositoryError, match="belongs to another user"):
        unnamed_folders(root, None)


@pytest.mark.shows("S19")
def test_a_symlink_that_nobody_has_named(root: Path, tmp_path: Path) -> None:
    """The default folder is never a symlink: a surrounding repository could have brought it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home/assets").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RepositoryError, match=f"--external-assets-dir {tmp_path}/elsewhere"):
        unnamed_folders(root, None)


@pytest.mark.shows("S19", "S17")
@pytest.mark.parametrize("place", [".git", ".git/objects", ".", "sub"])
def test_a_symlink_into_a_repository(root: Path, tmp_path: Path, place: str) -> None:
    """The advice never names a folder among git's own files, or in a work tree."""
    (root / "sub").mkdir()
    (tmp_path / "home/assets").symlink_to(root / place)
    with pytest.raises(RepositoryError, match=r"is a symlink.*outside of every repository") as error:
        unnamed_folders(root, None)
    assert str(root) not in str(error.value)


@pytest.mark.shows("S17")
def test_a_usual_folder_of_another_user(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is brought back from a folder that somebody else put beside the repository."""
    (tmp_path / "home/assets").mkdir()
    give_away(tmp_path / "home/assets", monkeypatch)
    with pytest.raises(RepositoryError, match=r"belongs to another user.*if you trust.*--external-assets-dir"):
        unnamed_folders(root, None)


@pytest.mark.shows("S22")
def test_all_work_trees_share_a_folder(root: Path, tmp_path: Path) -> None:
    """A linked work tree looks beside the main one first, wherever it lies; a submodule beside itself."""
    git(root, "worktree", "add", "-q", "--detach", str(tmp_path / "far/away/tree"))
    linked = tmp_path / "far/away/tree"
    assert usual_folders(root) == [tmp_path / "home/assets"]
    assert usual_folders(linked) == [tmp_path / "home/assets", tmp_path / "far/away/assets"]
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(root), "sub")
    assert usual_folders(root / "sub") == [root / "assets"]
    (tmp_path / "far/away/assets").symlink_to(tmp_path)  # not the first, so it is only left out
    assert unnamed_folders(linked, None) == [tmp_path / "home/assets"]


def test_the_folder_of_a_project_elsewhere(root: Path, tmp_path: Path) -> None:
    """If the named manifest belongs to another folder, its external folder comes first."""
    other = Project(tmp_path / "p/assets.json", tmp_path / "p", tmp_path / "p/assets", tmp_path / "assets")
    assert unnamed_folders(root, other) == [tmp_path / "assets", tmp_path / "home/assets"]
