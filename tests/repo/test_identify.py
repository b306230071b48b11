"""Large files are found: all of them, fast, and nothing else."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from grym_fetch.core.suspicion import MAX_POINTER_BYTES
from grym_fetch.repo.git import Git, GitUnusable
from grym_fetch.repo.identify import LargeFile, Total, ignore_line, survey, survey_staged, totals
from grym_fetch.repo.tree import find_root, git_folder_above
from grym_fetch.testing import seeded_bytes
from tests.repo.story import LIMIT, commit, git, repository, write


def found(folder: Path, root: Path | None = None, *, with_ignored: bool = False) -> list[str]:
    """The paths of the large files."""
    return [file.path for file in survey(folder, LIMIT, root or folder, with_ignored=with_ignored).files]


def test_the_largest_comes_first(tmp_path: Path) -> None:
    """Files over the limit are listed by size; one of exactly the limit is not over it."""
    write(tmp_path, "a", bytes(LIMIT + 1))
    write(tmp_path, "deep/er/b.bin", bytes(LIMIT + 2))
    write(tmp_path, "exact", bytes(LIMIT))
    assert found(tmp_path) == ["deep/er/b.bin", "a"]


def test_what_is_skipped(tmp_path: Path) -> None:
    """Neither git's folder nor node_modules is searched; symlinks and other repositories are reported."""
    for name in (".git/objects/x", "node_modules/x", "sub/node_modules/y/x", "vendor/x", "vendor/.git", "mine"):
        write(tmp_path, name, bytes(LIMIT + 1))
    (tmp_path / "link").symlink_to("mine")
    (tmp_path / "loop").symlink_to(".")
    result = survey(tmp_path / "sub", LIMIT, tmp_path / "sub")
    assert result.files == ()
    (tmp_path / ".git").rename(tmp_path / "moved-away")
    result = survey(tmp_path, LIMIT, tmp_path)
    assert [file.path for file in result.files] == ["mine", "moved-away/objects/x"]
    assert result.symlinks == ("link", "loop")
    assert result.repositories == ("vendor/",)


@pytest.mark.parametrize("unreadable", [".", "sub"])
def test_a_folder_that_cannot_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreadable: str
) -> None:
    """There may be large files in it; all others are found."""
    write(tmp_path, "sub/a", bytes(LIMIT + 1))
    write(tmp_path, "b", bytes(LIMIT + 1))
    real = os.scandir

    def scandir(folder: str) -> object:
        if Path(folder) == tmp_path / unreadable:
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    result = survey(tmp_path, LIMIT, tmp_path)
    is_all = unreadable == "."
    assert result.unreadable == ("." if is_all else "sub/",)
    assert [file.path for file in result.files] == ([] if is_all else ["b"])


@pytest.mark.shows("S17")
@pytest.mark.parametrize(
    ("there", "is_git_s"),
    [
        (("info/x", f"pack/pack-{'a' * 40}.pack"), True),
        ((f"pack/pack-{'a' * 40}.pack",), False),
        (("info/x", "pack/levels.pack"), False),
        (("HEAD", "objects/x", "refs/x"), True),
        (("HEAD", "objects/x"), False),
        ((f"ab/{'c' * 38}",), True),
        (("ab/texture",), False),
        ((f"ab/{'c' * 38}", "readme"), False),
    ],
)
def test_what_holds_the_objects_of_a_repository(tmp_path: Path, there: tuple[str, ...], is_git_s: bool) -> None:
    """All that is git's must be there: a folder with a name or two of them in it is anybody's."""
    for name in there:
        write(tmp_path, f"folder/{name}", bytes(LIMIT + 1))
    result = survey(tmp_path, LIMIT, tmp_path)
    assert [file.path for file in result.files] == ([] if is_git_s else sorted(f"folder/{name}" for name in there))
    assert result.repositories == (("folder/",) if is_git_s else ())


@pytest.mark.shows("S17")
def test_which_folder_is_git_s_own(tmp_path: Path) -> None:
    """The outermost, by its name or by what is in it; a work tree in one is not git's."""
    for bare in ("bare", "repo/.git/modules/inner"):
        for name in ("HEAD", "objects/x", "refs/x"):
            write(tmp_path, f"{bare}/{name}", b"")
    write(tmp_path, "bare/tree/.git", b"gitdir: ..")
    for place, expected in (
        ("repo/src/not/there", None),
        ("repo/.git", "repo/.git"),
        ("repo/.git/modules/inner/objects", "repo/.git"),
        ("bare", "bare"),
        ("bare/refs/x", "bare"),
        ("bare/tree/models", None),
        ("bare/tree/.git", "bare/tree/.git"),
        (".", None),
    ):
        assert git_folder_above(tmp_path / place) == (tmp_path / expected if expected else None), place


def test_what_git_ignores_is_left_out(tmp_path: Path) -> None:
    """Ignored files are listed only on request; tracked files do not count as ignored, whatever the rules say."""
    root = repository(tmp_path / "repo")
    names = ["build/a.bin", "b.log", "tracked.log", "plain", "sub/:(magic) ü\n.bin", "sub/c.log"]
    for name in names:
        write(root, name, bytes(LIMIT + 1))
    git(root, "add", "-f", "tracked.log")
    write(root, ".gitignore", b"build/\n*.log\n")
    assert found(root) == ["plain", "sub/:(magic) ü\n.bin", "tracked.log"]
    assert survey(root, LIMIT, root).ignored == 3
    assert sorted(found(root, with_ignored=True)) == sorted(names)
    assert found(root / "sub", root) == [":(magic) ü\n.bin"]


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    """A file whose name is not text is found and passed to git like any other."""
    root = repository(tmp_path / "repo")
    for name in (b"\xff.bin", b"\xfe.log"):
        Path(os.fsdecode(os.path.join(os.fsencode(root), name))).write_bytes(bytes(LIMIT + 1))
    write(root, ".gitignore", b"*.log\n")
    assert found(root) == [os.fsdecode(b"\xff.bin")]


def test_a_git_that_does_not_work_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If git refuses the repository, everything is listed, with the reason."""
    write(tmp_path, ".git", b"gitdir: /nowhere\n")
    write(tmp_path, "a", bytes(LIMIT + 1))
    assert found(tmp_path) == ["a"]
    assert "what git ignores is listed too" in caplog.text


def test_totals() -> None:
    """Sums by type and by folder, the largest first; types ignore case."""
    files = [LargeFile("m/a.CKPT", 5), LargeFile("m/b.ckpt", 6), LargeFile("c", 20), LargeFile(".hidden", 1)]
    assert totals(files, lambda file: file.type) == [Total("(none)", 2, 21), Total(".ckpt", 2, 11)]
    assert totals(files, lambda file: file.folder) == [Total(".", 2, 21), Total("m", 2, 11)]


@pytest.mark.parametrize("name", ["a.bin", "#a", "!a", "sub/a b", "a*[1]?", "back\\slash", "end  ", "ü"])
def test_a_line_for_gitignore_ignores_that_file_alone(tmp_path: Path, name: str) -> None:
    """Git itself agrees that the line names only this file, and no similar one."""
    root = repository(tmp_path / "repo")
    write(root, ".gitignore", f"{ignore_line(name)}\n".encode())
    for other in (name, f"x/{name}", f"{name}x"):
        done = subprocess.run(["git", "check-ignore", "-q", f"./{other}"], cwd=root, check=False)
        assert (done.returncode == 0) is (other == name)


@pytest.mark.alone
def test_a_big_tree_is_looked_through_quickly(tmp_path: Path) -> None:
    """20,000 files take a fifth of the two seconds that 100,000 may take, with leeway for a busy machine."""
    for folder in range(100):
        (tmp_path / str(folder)).mkdir()
        for name in range(200):
            os.close(os.open(tmp_path / str(folder) / str(name), os.O_CREAT | os.O_WRONLY))
    began = time.process_time()
    assert found(tmp_path) == []
    assert time.process_time() - began < 0.4


def test_the_root_is_where_git_says(tmp_path: Path) -> None:
    """The repository's root is the nearest folder with .git; without git it is the working directory."""
    root = repository(tmp_path / "repo")
    write(root, "sub/a", b"")
    commit(root)
    assert find_root(root / "sub", tmp_path) == root
    plain = write(tmp_path, "plain/sub/a", b"").parent
    assert find_root(plain, plain.parent) == plain.parent
    assert find_root(plain, root) == plain


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 3000\n"


@pytest.mark.shows("S22")
def test_what_git_stores_a_pointer_of_is_not_large(tmp_path: Path) -> None:
    """A file in Git LFS or git-annex takes 132 bytes of git; one that was committed in full before takes its size."""
    root = repository(tmp_path / "repo")
    for name in ("full.bin", "plain.bin"):
        write(root, name, bytes(2 * LIMIT))
    commit(root)
    write(root, ".gitattributes", b"*.bin filter=lfs\nplain.bin -filter\nannexed filter=annex\n*=x.bin -filter\n")
    write(root, "lfs.bin", POINTER)
    git(root, "-c", "filter.lfs.required=false", "add", "lfs.bin")
    for name in ("lfs.bin", "new.bin", "annexed", "sub/other filter=x.bin"):
        write(root, name, bytes(2 * LIMIT))
    result = survey(root, LIMIT, root)
    assert [file.path for file in result.files] == ["full.bin", "plain.bin", "sub/other filter=x.bin"]
    assert result.pointers == 3


@pytest.mark.shows("S22")
def test_how_long_a_pointer_may_be(tmp_path: Path) -> None:
    """As long as Git LFS itself takes one for it, in the folder and in the last commit; not one byte more."""
    root = repository(tmp_path / "repo")
    lengths = {"most": MAX_POINTER_BYTES, "more": MAX_POINTER_BYTES + 1}
    for name, length in lengths.items():
        write(root, f"{name}.here", POINTER.ljust(length, b"x"))
        write(root, f"{name}.bin", bytes(length))
    commit(root)
    write(root, ".gitattributes", b"*.bin filter=lfs\n")
    for name in lengths:
        write(root, f"{name}.bin", bytes(2 * MAX_POINTER_BYTES))
    result = survey(root, 10, root)
    assert [file.path for file in result.files] == ["more.bin", "more.here", ".gitattributes"]
    assert result.pointers == 2


@pytest.mark.shows("S22")
@pytest.mark.parametrize("folder", [".", "deep"])
def test_a_submodule_that_is_not_set_up(tmp_path: Path, folder: str) -> None:
    """Git answers nothing about a file in it, which is left out; it is reported, and everything else is found."""
    root = repository(tmp_path / "repo")
    for name in ("deep/sub/a.bin", "deep/sub/more/b.bin", "deep/other/c.bin", "d.bin"):
        write(root, name, bytes(LIMIT + 1))
    for link in ("deep/sub", "unused"):
        git(root, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},{link}")
    result = survey(root / folder, LIMIT, root, is_strict=True)
    is_all = folder == "."
    assert [file.path for file in result.files] == (["d.bin", "deep/other/c.bin"] if is_all else ["other/c.bin"])
    assert result.repositories == (("deep/sub/",) if is_all else ("sub/",))


@pytest.mark.shows("S22")
def test_a_pointer_is_no_large_file(tmp_path: Path) -> None:
    """If Git LFS has not fetched a file, its pointer is there, which is never large, however low the limit."""
    write(tmp_path, "pointer.bin", POINTER)
    write(tmp_path, "small.bin", b"x" * len(POINTER))
    result = survey(tmp_path, 10, tmp_path)
    assert ([file.path for file in result.files], result.pointers) == (["small.bin"], 1)


@pytest.mark.shows("S21")
def test_moved_files_are_seen_though_ignored(tmp_path: Path) -> None:
    """An ignored file is listed if it has a placeholder, here or in the last commit, or if a record has it."""
    root = repository(tmp_path / "repo")
    names = ["placed", "staged", "committed", "recorded", "other-size", "ignored"]
    placeholder = (
        b"grym-fetch asset reference, version 1\n\nid:     x\npath:   x\nsize:   1\nsha256: %s\nmoved:  x\nstored: x\n"
    ) % (b"0" * 64)
    for name in names:
        write(root, name, bytes(LIMIT + 1))
    write(root, ".gitignore", b"/[a-z]*\n!*.asset-ref\n")
    write(root, "committed.asset-ref", placeholder)
    commit(root)
    git(root, "rm", "-q", "committed.asset-ref")
    write(root, "staged.asset-ref", placeholder)
    git(root, "add", "staged.asset-ref")
    (root / "staged.asset-ref").unlink()
    write(root, "placed.asset-ref", placeholder)
    result = survey(root, LIMIT, root, recorded={("recorded", LIMIT + 1), ("other-size", 7)})
    assert [file.path for file in result.files] == ["committed", "placed", "recorded", "staged"]
    assert result.ignored == 2


@pytest.mark.shows("S19")
@pytest.mark.parametrize("name", ["a\nb", "\r", "a\r"])
def test_a_line_for_gitignore_is_one_line(tmp_path: Path, name: str) -> None:
    """A line end in a name does not make a second line, and the file is still ignored."""
    root = repository(tmp_path / "repo")
    line = ignore_line(name)
    assert len(line.splitlines()) == 1
    write(root, ".gitignore", f"{line}\n".encode())
    assert subprocess.run(["git", "check-ignore", "-q", f"./{name}"], cwd=root, check=False).returncode == 0


def test_what_is_staged(tmp_path: Path) -> None:
    """Only what the next commit adds or changes counts, with the size that is staged, whatever is in the folder now."""
    root = repository(tmp_path / "repo")
    write(root, "old.bin", bytes(LIMIT + 1))
    write(root, "first/grows", b"a")
    git(root, "add", "-A")
    assert [file.path for file in survey_staged(root, LIMIT, root).files] == ["old.bin"], "there is no commit yet"
    commit(root)
    write(root, "untracked.bin", bytes(LIMIT + 1))
    write(root, "first/grows", bytes(LIMIT + 2))
    write(root, "first/exact", bytes(LIMIT))
    write(root, "gone.bin", bytes(LIMIT + 3))
    git(root, "add", "first", "gone.bin")
    (root / "gone.bin").unlink()
    assert survey_staged(root, LIMIT, root).files == (
        LargeFile("gone.bin", LIMIT + 3),
        LargeFile("first/grows", LIMIT + 2),
    )
    assert survey_staged(root / "first", LIMIT, root).files == (LargeFile("grows", LIMIT + 2),)


def test_what_is_staged_in_a_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`git commit FILE` has an index of its own, which it names; an index elsewhere is another repository's."""
    root = repository(tmp_path / "repo")
    write(root, "a.bin", bytes(LIMIT + 1))
    own = root / ".git/next-index"
    with monkeypatch.context() as patch:
        patch.setenv("GIT_INDEX_FILE", os.fspath(own))
        git(root, "add", "a.bin")
    write(root, "b.bin", bytes(LIMIT + 1))
    git(root, "add", "b.bin")
    write(tmp_path, "elsewhere", own.read_bytes())
    for named, found in ((own, "a.bin"), (tmp_path / "elsewhere", "b.bin")):
        monkeypatch.setenv("GIT_INDEX_FILE", os.fspath(named))
        assert [file.path for file in survey_staged(root, LIMIT, root).files] == [found]


def test_a_submodule_is_no_blob(tmp_path: Path) -> None:
    """What is staged for it is a commit of another repository."""
    root = repository(tmp_path / "repo")
    write(root, "a.bin", b"a")
    git(root, "add", "a.bin")
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    assert Git(root).staged().keys() == {"a.bin"}


def test_staged_where_nothing_can_be(tmp_path: Path) -> None:
    """Without a repository a guard cannot say that all is well."""
    with pytest.raises(GitUnusable, match="not in a git repository"):
        survey_staged(tmp_path, LIMIT, tmp_path)


def test_a_cache_with_folders_of_two_digits_is_searched(tmp_path: Path) -> None:
    """Only a folder that holds nothing but such folders and git's own is taken for the objects of a repository."""
    name = "cache/ab/" + "0" * 38
    write(tmp_path, name, seeded_bytes(5000, seed=1))
    assert survey(tmp_path, LIMIT, tmp_path).files == ()
    write(tmp_path, "cache/index", b"")
    assert [file.path for file in survey(tmp_path, LIMIT, tmp_path).files] == [name]
