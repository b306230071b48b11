"""Files are moved out, and whatever happens none is lost."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import DiskFull, Locked, NotWritable, RepositoryError, StorageError, UnsafePath
from grym_fetch.disk.verified import FileSignature
from grym_fetch.repo import clean as clean_module
from grym_fetch.repo import moving
from grym_fetch.repo.clean import Cleaner, FileChanged, Kept, Moved, Why, plan_clean
from grym_fetch.repo.entries import add_to_gitignore
from grym_fetch.repo.git import Git, GitUnusable
from grym_fetch.repo.moving import Draft, draft_name
from grym_fetch.repo.places import placeholders, read_placeholder
from grym_fetch.repo.record import MovedFiles
from grym_fetch.repo.restore import Restorer
from grym_fetch.testing import seeded_bytes
from tests.repo.death import dying
from tests.repo.story import LIMIT, NOON, clean, commit, git, repository, write
from tests.support.sweeps import typical
from tests.support.system import folder_descriptor

A, B = seeded_bytes(5000, seed=1), seeded_bytes(3000, seed=2)
FILES = {"models/a.bin": A, "b.bin": B}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with two large files and a small one, without git."""
    root = tmp_path / "root"
    for name, content in (FILES | {"small": b"small"}).items():
        write(root, name, content)
    return root


def reasons(results: list[Moved | Kept]) -> dict[str, Why]:
    """Why files were kept."""
    return {result.path: result.why for result in results if isinstance(result, Kept)}


def drafts(*folders: Path) -> list[Path]:
    """Drafts that were left behind."""
    return [path for folder in folders for path in folder.rglob("*.grym-part")]


def test_a_file_is_moved(root: Path, tmp_path: Path) -> None:
    """The bytes, mode and time are in the target, the record has an entry, and a placeholder is in the old place."""
    (root / "b.bin").chmod(0o751)
    os.utime(root / "b.bin", ns=(1, 1_600_000_000_123_456_789))
    target = tmp_path / "out"
    assert [type(result) for result in clean(root, target)] == [Moved, Moved]
    for name, content in FILES.items():
        assert (target / name).read_bytes() == content
        assert not (root / name).exists()
    figures = (target / "b.bin").stat()
    assert (figures.st_mode & 0o777, figures.st_mtime_ns) == (0o751, 1_600_000_000_123_456_789)
    document = json.loads((target / "asset-manifest.json").read_text())
    assert document["created"] == document["updated"] == "2026-03-09T12:00:00.000Z"
    assert document["assets"][0] == {
        "originalPath": "models/a.bin",
        "storagePath": "models/a.bin",
        "size": len(A),
        "checksum": Checksum.of(A).hexdigest,
        "movedOn": "2026-03-09T12:00:00.000Z",
        "required": True,
    }
    placeholder = read_placeholder(root / "models/a.bin.asset-ref")
    assert placeholder is not None
    assert (placeholder.id, placeholder.checksum, placeholder.size) == ("a", Checksum.of(A), len(A))
    assert placeholder.external_dir is None  # not read back: it is for people
    assert "--external-assets-dir ../out" in (root / "b.bin.asset-ref").read_text()
    assert (root / "small").read_bytes() == b"small"


def test_paths_in_the_target_begin_at_the_source(root: Path, tmp_path: Path) -> None:
    """Cleaning a subfolder stores by the path within it, and records the path within the repository."""
    plan = plan_clean(root, root / "models", tmp_path / "out", LIMIT)
    with Cleaner(plan, lambda: NOON) as cleaner:
        assert [result.path for result in cleaner.moves()] == ["models/a.bin"]
    assert (tmp_path / "out/a.bin").read_bytes() == A
    assert MovedFiles(tmp_path / "out").files[0].original_path == "models/a.bin"


@pytest.mark.shows("S21")
@pytest.mark.parametrize("is_done", typical([False, True], False), ids=["before", "after"])
def test_death_at_any_point_loses_nothing(tmp_path: Path, is_done: bool) -> None:
    """Whichever call is the last, every byte is still there, no wrong bytes have a name, and a repeat finishes."""
    at, ended = 0, False
    while not ended:
        at += 1
        root, target = tmp_path / f"{at}" / "root", tmp_path / f"{at}" / "out"
        for name, content in FILES.items():
            write(root, name, content)
        plan = plan_clean(root, root, target, LIMIT)
        with dying(at, is_done=is_done) as fate, Cleaner(plan, lambda: NOON) as cleaner:
            list(cleaner.moves())
        ended = not fate.is_dead
        for name, content in FILES.items():
            there = [folder / name for folder in (root, target) if (folder / name).exists()]
            assert there, f"lost at call {at}"
            assert all(path.read_bytes() == content for path in there), f"wrong at call {at}"
            if not (root / name).exists():
                assert read_placeholder(root / f"{name}.asset-ref") is not None
                assert MovedFiles(target).find(name, Checksum.of(content)) is not None
        assert all(isinstance(result, Moved) for result in clean(root, target)), f"no repeat after call {at}"
        assert len(MovedFiles(target).files) == 2
        assert sorted(place.placeholder.original_path for place in placeholders(root)) == sorted(FILES)
        assert sorted(p.name for p in root.rglob("*") if p.is_file()) == ["a.bin.asset-ref", "b.bin.asset-ref"]
        assert drafts(root, target) == []
        assert {name: (target / name).read_bytes() for name in FILES} == FILES
    assert at > 60, "the sweep has not seen the calls of two moves"


@pytest.mark.shows("S21")
@pytest.mark.parametrize("number", range(1, 60))
def test_a_failing_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Any single call may fail with an I/O error: the file is in the old or the new place, and a repeat finishes."""
    root, target = tmp_path / "root", tmp_path / "out"
    write(root, "models/a.bin", A)
    plan = plan_clean(root, root, target, LIMIT)
    calls = 0

    def failing(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            nonlocal calls
            calls += 1
            if calls == number:
                raise OSError(5, "Input/output error")
            return real(*arguments, **more)

        return call

    with monkeypatch.context() as patch:
        for name in ("write", "fsync", "link", "unlink", "rename", "mkdir", "pread"):
            patch.setattr(os, name, failing(getattr(os, name)))
        try:
            with Cleaner(plan, lambda: NOON) as cleaner:
                list(cleaner.moves())
        except (NotWritable, RepositoryError):
            pass
    there = [folder / "models/a.bin" for folder in (root, target) if (folder / "models/a.bin").exists()]
    assert there
    assert all(path.read_bytes() == A for path in there)
    clean(root, target)
    assert (target / "models/a.bin").read_bytes() == A
    assert read_placeholder(root / "models/a.bin.asset-ref") is not None
    assert drafts(root, target) == []


def test_folders_that_a_dead_run_has_made_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dead run may not have flushed them, and in a power cut the only copy would be lost with its folder."""
    write(tmp_path / "root", "models/deep/a.bin", A)
    (tmp_path / "out/models/deep").mkdir(parents=True)
    calls: list[str] = []
    fsync, unlink = os.fsync, os.unlink

    def noting_fsync(descriptor: int) -> None:
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def noting_unlink(name: str, *, dir_fd: int | None = None) -> None:
        calls.append(f"unlink {name}")
        unlink(name, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", noting_fsync)
        patch.setattr(os, "unlink", noting_unlink)
        clean(tmp_path / "root", tmp_path / "out")
    before = calls[: calls.index("unlink a.bin")]
    for folder in ("out", "out/models", "out/models/deep"):
        assert str(tmp_path / folder) in before


def test_a_file_that_is_being_written_stays(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes while it is copied, even to the same size and time, is kept in its present state."""
    real = Draft.copy

    def copy(draft: Draft, source: int, **telling: Any) -> Checksum:
        checksum = real(draft, source, **telling)
        figures = os.fstat(source)
        if figures.st_size == len(A):
            (root / "models/a.bin").write_bytes(B + A[len(B) :])
            os.utime(root / "models/a.bin", ns=(figures.st_atime_ns, figures.st_mtime_ns))
        return checksum

    monkeypatch.setattr(Draft, "copy", copy)
    results = clean(root, tmp_path / "out")
    assert reasons(results) == {"models/a.bin": Why.CHANGED}
    assert (root / "models/a.bin").read_bytes() == B + A[len(B) :]
    assert not (root / "models/a.bin.asset-ref").exists()
    assert not (tmp_path / "out/models/a.bin").exists()
    assert (tmp_path / "out/b.bin").read_bytes() == B


def test_a_file_that_changes_last_of_all_stays(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change after the placeholder was written is still noticed, and the placeholder is removed."""
    real = moving.write_file

    def write_file(folder: int, name: str, data: bytes) -> None:
        real(folder, name, data)
        if name == "b.bin.asset-ref":
            write(root, "new", A)
            os.replace(root / "new", root / "b.bin")

    monkeypatch.setattr(clean_module, "write_file", write_file)
    assert reasons(clean(root, tmp_path / "out")) == {"b.bin": Why.CHANGED}
    assert (root / "b.bin").read_bytes() == A
    assert not (root / "b.bin.asset-ref").exists()


@pytest.mark.shows("S21")
def test_a_file_that_has_changed_gets_no_placeholder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a moment: whoever dies then would leave one that leads to other bytes."""
    real_save, real_write = MovedFiles.save, moving.write_file
    written: list[str] = []

    def save(record: MovedFiles, *arguments: Any) -> None:
        real_save(record, *arguments)
        if record.files[-1].original_path == "b.bin":
            write(root, "b.bin", B + b"more")

    def write_file(folder: int, name: str, data: bytes) -> None:
        written.append(name)
        real_write(folder, name, data)

    monkeypatch.setattr(MovedFiles, "save", save)
    monkeypatch.setattr(clean_module, "write_file", write_file)
    assert reasons(clean(root, tmp_path / "out")) == {"b.bin": Why.CHANGED}
    assert written == ["a.bin.asset-ref"]


@pytest.mark.shows("S21")
@pytest.mark.parametrize("when", ["before", "while copied", "while compared"])
def test_a_file_that_goes_away_keeps_no_other(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """It has changed, whatever is in the target."""
    real_copy, real_digest = Draft.copy, moving.digest_of

    def copy(draft: Draft, source: int, **telling: Any) -> Checksum:
        if when == "while copied" and os.fstat(source).st_size == len(B):
            (root / "b.bin").unlink()
        return real_copy(draft, source, **telling)

    def digest_of(descriptor: int, *told: Any) -> Checksum:
        if (root / "b.bin").exists():
            (root / "b.bin").unlink()
            return Checksum.of(b"of what was read until then")
        return real_digest(descriptor, *told)

    monkeypatch.setattr(Draft, "copy", copy)
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    if when == "before":
        (root / "b.bin").unlink()
    if when == "while compared":
        write(tmp_path, "out/b.bin", B)
        monkeypatch.setattr(clean_module, "digest_of", digest_of)
    with Cleaner(plan, lambda: NOON) as cleaner:
        assert reasons(list(cleaner.moves())) == {"b.bin": Why.CHANGED}
    assert not (root / "b.bin.asset-ref").exists()
    assert (tmp_path / "out/models/a.bin").read_bytes() == A


@pytest.mark.shows("S21")
@pytest.mark.parametrize("when", ["before", "while copied"])
def test_what_appears_in_the_target_is_not_replaced(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A folder or a file that had not been there when it was planned has the name; the other file is moved."""
    place, real = tmp_path / "out/b.bin", Draft.copy

    def copy(draft: Draft, source: int, **telling: Any) -> Checksum:
        if when == "while copied" and os.fstat(source).st_size == len(B):
            place.write_bytes(B)
        return real(draft, source, **telling)

    monkeypatch.setattr(Draft, "copy", copy)
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    if when == "before":
        place.mkdir(parents=True)
    with Cleaner(plan, lambda: NOON) as cleaner:
        assert reasons(list(cleaner.moves())) == {"b.bin": Why.TAKEN}
    assert (root / "b.bin").read_bytes() == B
    assert not (root / "b.bin.asset-ref").exists()


@pytest.mark.shows("S21")
def test_the_open_file_and_its_name_must_both_be_the_same(tmp_path: Path) -> None:
    """Where a rename leaves the times alone, only one of them shows that the file was replaced."""
    one, other = write(tmp_path, "one", A), write(tmp_path, "other", A)
    folder = folder_descriptor(tmp_path)
    try:
        with one.open("rb") as file:
            clean_module._check_unchanged(file.fileno(), folder, "one", FileSignature.of(one.stat()))
            for known in (one, other):
                with pytest.raises(FileChanged):
                    clean_module._check_unchanged(file.fileno(), folder, "other", FileSignature.of(known.stat()))
    finally:
        os.close(folder)


@pytest.mark.shows("S21")
@pytest.mark.linux
@pytest.mark.parametrize("when", ["before", "while copied", "last of all"])
def test_a_file_that_is_open_for_writing_stays(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """What is written later would go to a file that has no name any more."""
    writers = ExitStack()
    real_copy, real_write = Draft.copy, moving.write_file
    copied: list[int] = []

    def copy(draft: Draft, source: int, **telling: Any) -> Checksum:
        copied.append(os.fstat(source).st_size)
        if when == "while copied" and os.fstat(source).st_size == len(B):
            writers.callback(os.close, os.open(root / "b.bin", os.O_WRONLY))
        return real_copy(draft, source, **telling)

    def write_file(folder: int, name: str, data: bytes) -> None:
        real_write(folder, name, data)
        if when == "last of all" and name == "b.bin.asset-ref":
            writers.callback(os.close, os.open(root / "b.bin", os.O_WRONLY))

    with writers, monkeypatch.context() as patch:
        patch.setattr(Draft, "copy", copy)
        patch.setattr(clean_module, "write_file", write_file)
        if when == "before":
            writers.callback(os.close, os.open(root / "b.bin", os.O_WRONLY))
        (kept,) = (each for each in clean(root, tmp_path / "out") if isinstance(each, Kept))
        assert (kept.path, kept.why) == ("b.bin", Why.CHANGED)
        assert "open for writing" in kept.reason
        assert not (root / "b.bin.asset-ref").exists()
        assert (tmp_path / "out/b.bin").exists() == (when == "last of all")
        assert (len(B) in copied) == (when != "before"), "it would be copied in vain"
    assert [type(each) for each in clean(root, tmp_path / "out")] == [Moved]


def test_a_name_with_other_content_is_taken(root: Path, tmp_path: Path) -> None:
    """A different file in the target is never replaced, even if its size is the same; an equal one is fine."""
    target = tmp_path / "out"
    write(target, "models/a.bin", A[::-1])
    write(target, "b.bin", B)
    assert reasons(clean(root, target)) == {"models/a.bin": Why.TAKEN}
    assert (root / "models/a.bin").read_bytes() == A
    assert (target / "models/a.bin").read_bytes() == A[::-1]
    write(target, "models/a.bin", b"short")
    assert reasons(list(plan_clean(root, root, target, LIMIT).kept)) == {"models/a.bin": Why.TAKEN}


def test_a_placeholder_never_replaces_anything_else(root: Path, tmp_path: Path) -> None:
    """If something else has the placeholder's name, the file stays where it is."""
    write(root, "b.bin.asset-ref", b"my notes")
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    assert reasons(list(plan.kept)) == {"b.bin": Why.TAKEN}


@pytest.mark.parametrize("target", [".", "models", "models/deep/er", "../root/x", "../link"])
def test_a_target_inside_is_refused(root: Path, tmp_path: Path, target: str) -> None:
    """The target must be outside the repository, even when seen through a symlink."""
    (tmp_path / "link").symlink_to(root / "models")
    with pytest.raises(RepositoryError, match="inside"):
        plan_clean(root, root, root / target, LIMIT)
    with pytest.raises(RepositoryError, match="inside"):
        plan_clean(root, root / "models", root / target, LIMIT)


def test_git_itself_is_never_touched(tmp_path: Path) -> None:
    """Nothing in .git is moved, even if it is named."""
    root = repository(tmp_path / "repo")
    write(root, ".git/big", A)
    assert plan_clean(root, root, tmp_path / "out", LIMIT).moves == ()
    with pytest.raises(RepositoryError, match="git's own"):
        plan_clean(root, root / ".git", tmp_path / "out", LIMIT)


def test_uncommitted_changes_are_kept(tmp_path: Path) -> None:
    """Modified and staged files stay until they are committed or it is allowed; files unknown to git are moved."""
    root = repository(tmp_path / "repo")
    for name in ("clean.bin", "modified ü.bin", "renamed.bin"):
        write(root, name, seeded_bytes(2000, seed=len(name)))
    commit(root)
    write(root, "modified ü.bin", A)
    git(root, "mv", "renamed.bin", "new name.bin")
    write(root, "staged.bin", B)
    git(root, "add", "staged.bin")
    write(root, "untracked.bin", A)
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    dirty = {"modified ü.bin", "new name.bin", "staged.bin"}
    assert reasons(list(plan.kept)) == dict.fromkeys(dirty, Why.UNCOMMITTED)
    assert {move.path for move in plan.moves} == {"clean.bin", "untracked.bin"}
    assert plan_clean(root, root, tmp_path / "out", LIMIT, allow_dirty=True).kept == ()


@pytest.mark.parametrize(("closed", "said"), [("b.bin", "cannot be read"), (".", "may not be written to")])
def test_what_this_user_cannot_move_is_known_before(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str, said: str
) -> None:
    """It is not called uncommitted, and nothing is copied in vain."""
    forbidden = {root / closed: os.R_OK if closed == "b.bin" else os.W_OK}
    monkeypatch.setattr(os, "access", lambda path, mode: not forbidden.get(path, 0) & mode)
    results = clean(root, tmp_path / "out")
    (kept,) = plan_clean(root, root, tmp_path / "out", LIMIT).kept
    assert (kept.path, kept.why, said in kept.reason) == ("b.bin", Why.FAILED, True)
    assert reasons(results) == {}
    assert not (tmp_path / "out/b.bin").exists()


@pytest.mark.parametrize("allow_dirty", [False, True])
def test_a_git_that_cannot_be_asked_is_an_obstacle(tmp_path: Path, allow_dirty: bool) -> None:
    """If it is unknown what is ignored, nothing is moved, even if moving uncommitted files is allowed."""
    write(tmp_path / "repo", ".git", b"gitdir: /nowhere\n")
    write(tmp_path / "repo", "a.bin", A)
    with pytest.raises(GitUnusable, match="not known what git ignores"):
        plan_clean(tmp_path / "repo", tmp_path / "repo", tmp_path / "out", LIMIT, allow_dirty=allow_dirty)


def test_symlinks_are_reported(root: Path, tmp_path: Path) -> None:
    """A symlink to a large file is neither followed nor moved."""
    write(tmp_path, "elsewhere", A)
    (root / "link.bin").symlink_to(tmp_path / "elsewhere")
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    assert plan.symlinks == ("link.bin",)
    assert "link.bin" not in {move.path for move in plan.moves}


@pytest.mark.parametrize(
    "name",
    ["a:b", "minimal/a", "git~1", "e\u0301.bin", "x" * 235, "a.asset-ref", ".a.bin.grym-part"],
)
def test_names_that_could_not_come_back_stay(tmp_path: Path, name: str) -> None:
    """A file whose path is not safe on every system stays where it is, with the reason."""
    write(tmp_path / "root", name, A)
    plan = plan_clean(tmp_path / "root", tmp_path / "root", tmp_path / "out", LIMIT)
    assert reasons(list(plan.kept)) == {name: Why.UNSAFE}


@pytest.mark.parametrize("name", ["x" * clean_module.MAX_NAME_BYTES, ".hidden.bin", "a.grym-part"])
def test_names_that_only_look_so_are_moved(tmp_path: Path, name: str) -> None:
    """The longest that there may be; one that begins, or ends, like that of an unfinished copy."""
    write(tmp_path / "root", name, A)
    assert plan_clean(tmp_path / "root", tmp_path / "root", tmp_path / "out", LIMIT).kept == ()


def test_only_a_folder_is_searched(root: Path, tmp_path: Path) -> None:
    """A file that is named instead of one is said to be none, not found to be empty."""
    with pytest.raises(RepositoryError, match="is not a folder"):
        plan_clean(root, root / "b.bin", tmp_path / "out", LIMIT)


def test_each_asset_has_an_id_of_its_own(root: Path, tmp_path: Path) -> None:
    """Of several runs, too; and one whose placeholder is there already keeps that."""
    write(root, "other/a.bin", A[:2000])
    clean(root, tmp_path / "out")
    write(root, "third/a.bin", A[:1500])
    kept = root / "b.bin.asset-ref"
    kept.write_bytes(kept.read_bytes().replace(b"id:     b", b"id:     mine"))
    write(root, "b.bin", B)
    clean(root, tmp_path / "out")
    ids = {place.placeholder.original_path: place.placeholder.id for place in placeholders(root)}
    assert sorted(ids) == ["b.bin", "models/a.bin", "other/a.bin", "third/a.bin"]
    assert len(set(ids.values())) == 4
    assert ids["b.bin"] == "mine"
    write(root, "b.bin", A[:1200])
    (tmp_path / "out/b.bin").unlink()
    clean(root, tmp_path / "out")
    changed = read_placeholder(kept)
    assert changed is not None
    assert changed.id != "mine", "other content is another asset"


@pytest.mark.shows("S21")
def test_an_unfinished_copy_is_no_file_to_be_moved(root: Path, tmp_path: Path) -> None:
    """What a killed restore leaves has the name of a draft: in the target, the next run would remove it as its own."""
    write(root, draft_name("b.bin"), A)
    assert reasons(clean(root, tmp_path / "out")) == {}
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    assert reasons(list(plan.kept)) == {draft_name("b.bin"): Why.UNSAFE}
    assert (root / draft_name("b.bin")).read_bytes() == A


@pytest.mark.shows("S22")
def test_names_that_are_one_elsewhere_do_not_both_go(root: Path, tmp_path: Path) -> None:
    """Where case is not told apart, only one of them could come back; it does not matter when the other was moved."""
    write(root, "B.bin", A)
    kept = plan_clean(root, root, tmp_path / "out", LIMIT).kept
    assert [(each.path, each.why) for each in kept] == [("b.bin", Why.UNSAFE)]
    assert "'B.bin' and 'b.bin' are one file where case" in kept[0].reason
    clean(root, tmp_path / "out")
    assert reasons(list(plan_clean(root, root, tmp_path / "out", LIMIT).kept)) == {"b.bin": Why.UNSAFE}


def test_an_assets_folder_stays(root: Path, tmp_path: Path) -> None:
    """Files that grym-fetch downloaded into the project are not moved out again."""
    write(root, "assets/.grym-fetch/verified.log", b"")
    write(root, "assets/deep/er.bin", A)
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    assert reasons(list(plan.kept)) == {"assets/deep/er.bin": Why.NEEDED}


def test_two_at_once(root: Path, tmp_path: Path) -> None:
    """Only one process moves files into a folder at a time; the other is told so."""
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    with Cleaner(plan, lambda: NOON), pytest.raises(Locked), Cleaner(plan, lambda: NOON):
        pass


@pytest.mark.root
@pytest.mark.parametrize("there", ["a dead draft", "the copy", "holes"])
def test_room_for_what_is_still_to_be_copied(tmp_path: Path, there: str) -> None:
    """What an earlier run has left in the target needs no more room, and holes need none."""
    root, target = tmp_path / "root", tmp_path / "out"
    content = seeded_bytes(600_000, seed=5)
    file = write(root, "a.bin", content if there != "holes" else b"x")
    if there == "holes":
        os.truncate(file, 64 * 1024 * 1024)
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", target], check=True)
    try:
        if there != "holes":
            write(target, draft_name("a.bin") if there == "a dead draft" else "a.bin", content)
        assert [type(result) for result in clean(root, target)] == [Moved]
        assert (target / "a.bin").stat().st_size == (64 * 1024 * 1024 if there == "holes" else len(content))
    finally:
        subprocess.run(["umount", target], check=True)


def test_no_room(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for the copies, nothing is started."""
    monkeypatch.setattr(clean_module, "free_bytes", lambda _: 4000)
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    with pytest.raises(DiskFull, match=r"4\.9 KiB needed, 3\.9 KiB free"), Cleaner(plan, lambda: NOON):
        pass
    monkeypatch.setattr(clean_module, "free_bytes", lambda _: len(A))
    with Cleaner(plan, lambda: NOON):
        pass


def test_a_lying_disk_is_noticed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the bytes read back differ from those written, the original stays and nothing gets the name."""
    monkeypatch.setattr("grym_fetch.repo.moving.digest_of", lambda *_: Checksum.of(b"rot"))
    with pytest.raises(NotWritable, match="read back"):
        clean(root, tmp_path / "out")
    assert (root / "models/a.bin").read_bytes() == A
    assert not (tmp_path / "out/models/a.bin").exists()
    assert drafts(tmp_path / "out") == []


def test_a_file_system_without_links(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hard links, a rename is used, and a taken name is still not replaced."""

    def link(*arguments: object, **more: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert all(isinstance(result, Moved) for result in clean(root, tmp_path / "out"))
    folder = folder_descriptor(tmp_path / "out")
    try:
        with Draft(folder, "b.bin") as draft, pytest.raises(FileExistsError):
            draft.publish()
    finally:
        os.close(folder)
    assert (tmp_path / "out/b.bin").read_bytes() == B


def test_a_dead_draft_is_never_written_to(root: Path, tmp_path: Path) -> None:
    """A draft may be the finished file under a second name (death between link and unlink): it is only unlinked."""
    target = tmp_path / "out"
    stored = write(target, "models/a.bin", A)
    os.link(stored, stored.with_name(draft_name("a.bin")))
    assert all(isinstance(result, Moved) for result in clean(root, target))
    assert stored.read_bytes() == A
    assert drafts(target) == []


def test_a_damaged_record_is_not_overwritten(root: Path, tmp_path: Path) -> None:
    """An unreadable record is left alone, and nothing is moved."""
    record = write(tmp_path / "out", "asset-manifest.json", b'{"assets": [')
    with pytest.raises(RepositoryError, match="cannot be read"):
        clean(root, tmp_path / "out")
    assert record.read_bytes() == b'{"assets": ['
    assert (root / "b.bin").exists()


def test_what_others_wrote_into_the_record_is_kept(root: Path, tmp_path: Path) -> None:
    """Unknown keys, entries of other projects and even unusable ones survive."""
    others = [{"originalPath": "../x", "note": 1}, 7]
    write(tmp_path / "out", "asset-manifest.json", json.dumps({"owner": "me", "assets": others}).encode())
    clean(root, tmp_path / "out")
    document = json.loads((tmp_path / "out/asset-manifest.json").read_text())
    assert document["owner"] == "me"
    assert document["assets"][:2] == others
    assert len(document["assets"]) == 4


@pytest.mark.root
def test_across_file_systems(root: Path, tmp_path: Path) -> None:
    """The target may be on another file system."""
    (tmp_path / "out").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "out"], check=True)
    try:
        assert all(isinstance(result, Moved) for result in clean(root, tmp_path / "out"))
        assert (tmp_path / "out/models/a.bin").read_bytes() == A
    finally:
        subprocess.run(["umount", tmp_path / "out"], check=True)


# --- what git knows ------------------------------------------------------------------------------------------


@pytest.mark.shows("S17", "S21")
async def test_a_file_that_was_brought_back_is_moved_again(tmp_path: Path) -> None:
    """Its .gitignore line does not hide it, whether the removal of its placeholder was committed or not."""
    root, target = repository(tmp_path / "repo"), tmp_path / "out"
    write(root, "models/a.bin", A)
    commit(root)
    clean(root, target)
    add_to_gitignore(root, ["/models/a.bin", "/mine.bin"])
    write(root, "mine.bin", B)
    commit(root)
    for is_committed in (False, True):
        restorer = Restorer(root, [target])
        await restorer.restore(restorer.find("models/a.bin", root)[0])
        if is_committed:
            commit(root)
            assert git(root, "ls-files") == ".gitignore"
        assert [result.path for result in clean(root, target)] == ["models/a.bin"]
        assert read_placeholder(root / "models/a.bin.asset-ref") is not None
        assert (root / "mine.bin").exists()


@pytest.mark.shows("S21")
@pytest.mark.parametrize("rules", ["models/*\n!models/*.bin\n", "models/\n", "*.asset-ref\n"])
def test_a_file_whose_placeholder_git_would_ignore_stays(tmp_path: Path, rules: str) -> None:
    """Its removal would be committed without its placeholder, and no clone could bring it back."""
    root = repository(tmp_path / "repo")
    write(root, ".gitignore", rules.encode())
    write(root, "models/a.bin", A)
    git(root, "add", "-f", "models/a.bin")
    commit(root)
    (kept,) = plan_clean(root, root, tmp_path / "out", LIMIT).kept
    assert (kept.path, kept.why) == ("models/a.bin", Why.UNSAFE)
    assert "`git check-ignore -v models/a.bin.asset-ref` names the line" in kept.reason
    # Whoever adds it nevertheless has it committed.
    write(root, "models/a.bin.asset-ref", b"")
    git(root, "add", "-f", "models/a.bin.asset-ref")
    assert plan_clean(root, root, tmp_path / "out", LIMIT).kept[0].why is Why.TAKEN


@pytest.mark.shows("S17")
def test_what_is_ignored_is_never_moved_for_want_of_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If git fails to say what is ignored, be it only once, clean moves nothing."""
    root = repository(tmp_path / "repo")
    write(root, "ignored.bin", A)
    write(root, ".gitignore", b"/ignored.bin\n")
    real, asked = Git.ignored, []

    def fail(*arguments: Any, **more: Any) -> set[str]:
        asked.append(arguments)
        if len(asked) == 1:
            raise GitUnusable("git check-ignore failed: fatal: a reason")
        return real(*arguments, **more)

    monkeypatch.setattr(Git, "ignored", fail)
    with pytest.raises(GitUnusable, match="nothing was moved"):
        plan_clean(root, root, tmp_path / "out", LIMIT, allow_dirty=True)


@pytest.mark.shows("S21")
def test_holes_stay_holes(tmp_path: Path) -> None:
    """A sparse file of 64 MiB with a few pages has a few pages in the target, too, and the same bytes."""
    root, target = tmp_path / "root", tmp_path / "out"
    size = 64 * 1024 * 1024
    root.mkdir()
    with open(root / "sparse.bin", "wb") as file:
        file.seek(20_000_000)
        file.write(A)
        file.truncate(size)
    if (root / "sparse.bin").stat().st_blocks * 512 >= size:
        pytest.skip("this file system has no holes")
    before = Checksum.of((root / "sparse.bin").read_bytes())
    assert [type(result) for result in clean(root, target)] == [Moved]
    figures = (target / "sparse.bin").stat()
    assert figures.st_size == size
    assert figures.st_blocks * 512 < 1024 * 1024
    assert Checksum.of((target / "sparse.bin").read_bytes()) == before


@pytest.mark.shows("S21")
@pytest.mark.parametrize("is_done", typical([False, True], False), ids=["before", "after"])
def test_death_while_holes_are_copied(tmp_path: Path, is_done: bool) -> None:
    """A draft whose holes are incomplete never gets the name: a complete file is here, there, or in both places."""
    page = moving._PAGE_BYTES
    whole = bytes(3 * page) + A + bytes(5 * page)
    at, ended = 0, False
    while not ended:
        at += 1
        root, target = tmp_path / f"{at}" / "root", tmp_path / f"{at}" / "out"
        root.mkdir(parents=True)
        with open(root / "sparse.bin", "wb") as file:
            file.seek(3 * page)
            file.write(A)
            file.truncate(len(whole))
        plan = plan_clean(root, root, target, LIMIT)
        with dying(at, is_done=is_done) as fate, Cleaner(plan, lambda: NOON) as cleaner:
            list(cleaner.moves())
        ended = not fate.is_dead
        there = [folder / "sparse.bin" for folder in (root, target) if (folder / "sparse.bin").exists()]
        assert there, f"lost at call {at}"
        assert all(path.read_bytes() == whole for path in there), f"wrong at call {at}"
        assert all(isinstance(result, Moved) for result in clean(root, target)), f"no repeat after call {at}"
        assert (target / "sparse.bin").read_bytes() == whole
        assert drafts(root, target) == []
    assert at > 25


@pytest.mark.parametrize("end", ["holes", "data", "data behind a hole"])
def test_a_copy_with_holes_is_byte_for_byte(tmp_path: Path, end: str) -> None:
    """Wherever holes begin and end, even at the end of the file, no byte is moved or lost."""
    page = moving._PAGE_BYTES
    content = b"".join([b"a" * page, bytes(page), bytes(page - 1), b"b", bytes(2 * page + 7), b"c" * 3])
    content += bytes(page + 11) if end == "holes" else b"d"
    with open(tmp_path / "source", "wb") as file:
        file.write(content)
        file.truncate(len(content) + 40 * page)
        if end == "data behind a hole":
            file.seek(0, os.SEEK_END)
            file.write(b"e" * 5)
    folder = folder_descriptor(tmp_path)
    source = os.open(tmp_path / "source", os.O_RDONLY)
    try:
        with Draft(folder, "copy") as draft:
            draft.copy(source)
            draft.publish()
    finally:
        os.close(source)
        os.close(folder)
    assert (tmp_path / "copy").read_bytes() == content + bytes(40 * page) + b"e" * (5 * (end == "data behind a hole"))


@pytest.mark.shows("S21")
@pytest.mark.parametrize("trouble", ["a folder in the way", "a symlink in the way", "cannot be removed"])
def test_one_file_that_cannot_be_moved_keeps_no_other(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """The file stays, with the reason and without a placeholder; the others are moved."""
    target = tmp_path / "out"
    plan = plan_clean(root, root, target, LIMIT)
    if trouble == "a folder in the way":
        write(target, "models", b"a file where a folder is needed")
    elif trouble == "a symlink in the way":
        target.mkdir()
        (target / "models").symlink_to(tmp_path)
    else:
        real = os.unlink

        def unlink(name: str, *, dir_fd: int | None = None) -> None:
            if name == "a.bin":
                raise PermissionError(1, "Operation not permitted")
            real(name, dir_fd=dir_fd)

        monkeypatch.setattr(os, "unlink", unlink)
    with Cleaner(plan, lambda: NOON) as cleaner:
        results = list(cleaner.moves())
    assert reasons(results) == {"models/a.bin": Why.FAILED}
    assert (root / "models/a.bin").read_bytes() == A
    assert not (root / "models/a.bin.asset-ref").exists()
    assert (target / "b.bin").read_bytes() == B
    assert not (root / "b.bin").exists()


@pytest.mark.shows("S19")
def test_a_record_is_no_symlink(root: Path, tmp_path: Path) -> None:
    """A record that leads elsewhere is neither read nor replaced, and nothing is moved."""
    write(tmp_path, "elsewhere.json", b'{"assets": []}')
    (tmp_path / "out").mkdir()
    (tmp_path / "out/asset-manifest.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(UnsafePath, match="symlink"):
        clean(root, tmp_path / "out")
    assert (root / "b.bin").exists()
    assert (tmp_path / "elsewhere.json").read_bytes() == b'{"assets": []}'


@pytest.mark.shows("S19")
def test_a_target_that_becomes_a_symlink(root: Path, tmp_path: Path) -> None:
    """A target that becomes a symlink after it was checked gets nothing."""
    (tmp_path / "elsewhere").mkdir()
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError), Cleaner(plan, lambda: NOON):
        pass
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.shows("S22")
def test_a_name_that_cannot_be_moved_is_to_be_changed(tmp_path: Path) -> None:
    """A name that not every system can have stays and is reported with its reason and the way out."""
    root = tmp_path / "root"
    names = {
        b"n\xff.bin": "not UTF-8",
        b"a*.bin": "Windows forbids",
        b"t\t.bin": "control character",
        b'".bin': "forbids",
    }
    names |= {b"u\xcc\x88.bin": "normal form C", b"x" * 250: "at most 240"}
    for name in names:
        write(root, os.fsdecode(name), A)
    kept = {os.fsencode(each.path): each.reason for each in plan_clean(root, root, tmp_path / "out", LIMIT).kept}
    assert kept.keys() == names.keys()
    for name, reason in kept.items():
        assert names[name] in reason
        assert "; rename it" in reason
