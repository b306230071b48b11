"""How git is started: nothing that a repository configures runs, and no variable leads to another repository.

A table of all git settings says which could start a program; one added by a later git is noticed, and has to be
switched off or explained.
"""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from grym_fetch.manifest_files.project import find_project
from grym_fetch.project.setup import git_steps
from grym_fetch.repo import git as git_module
from grym_fetch.repo.clean import plan_clean
from grym_fetch.repo.complaints import complaint
from grym_fetch.repo.git import Git, GitUnusable
from grym_fetch.repo.history import find_large_blobs
from grym_fetch.repo.identify import survey
from grym_fetch.repo.process import COMMANDS, SWITCHED_OFF, git_command, git_environment
from grym_fetch.repo.restore import Restorer
from grym_fetch.testing import seeded_bytes
from tests.repo.hostile import ATTRIBUTES, PROGRAMS, Trap, armed, documented, is_known, sign
from tests.repo.story import LIMIT, commit, git, repository, write

A, B = seeded_bytes(5000, seed=1), seeded_bytes(3000, seed=2)


@pytest.mark.shows("S18")
def test_every_setting_that_git_knows_has_been_read() -> None:
    """For each setting, somebody has checked whether it starts a program."""
    unknown = [name for name in documented() if not is_known(name)]
    assert unknown == [], "read what these do, then write them into tests/repo/git_settings.toml"


@pytest.mark.shows("S18")
def test_what_is_to_be_switched_off_is() -> None:
    """Each setting that the table marks has a value of ours; and no switch is misspelt."""
    families = {"gpg.openpgp.program": "gpg.<format>.program", "gpg.x509.program": "gpg.<format>.program"}
    families |= {"gpg.ssh.program": "gpg.<format>.program"}
    families |= {name: "hook.<event>.enabled" for name in SWITCHED_OFF if name.startswith("hook.")}
    switched = {families.get(name, name) for name in SWITCHED_OFF}
    assert switched - {"hook.<event>.enabled"} == {name for name, why in PROGRAMS.items() if why == "switched off"}
    assert "hook.<event>.enabled" in switched


def test_without_git_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said at once, and not by a question that fails."""
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(GitUnusable, match="not installed or not in PATH"):
        Git(tmp_path)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_what_has_exactly_the_bytes_of_a_blob(tmp_path: Path, algorithm: str) -> None:
    """That is known without git, by the blob's name; neither through a symlink nor from a pipe."""
    name = hashlib.new(algorithm, b"blob %d\0" % len(A) + A).hexdigest()
    file = write(tmp_path, "a.bin", A)
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path, "longer", A + b"x")
    write(tmp_path, "other", A[:-1] + b"x")
    names = ["a.bin", "link", "longer", "missing", "other", "pipe"]
    assert [each for each in names if git_module._is_blob(tmp_path / each, name)] == ["a.bin"]


@pytest.mark.shows("S18")
def test_git_is_started_in_one_place() -> None:
    """No other module of the package starts git, and this one starts only commands known to run nothing."""
    package = Path(__file__).parents[2] / "grym_fetch"
    importing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "subprocess" in path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import) and any(alias.name == "subprocess" for alias in node.names)
    }
    assert importing == {"repo/process.py"}
    with pytest.raises(ValueError, match="git status is not one"):
        git_command("git", Path("/"), ["status"])
    assert COMMANDS.isdisjoint({"status", "log", "show", "diff", "fetch", "checkout", "submodule"})


@pytest.mark.shows("S18", "S17")
def test_variables_that_name_a_repository_are_dropped() -> None:
    """Every variable that git calls local to a repository is dropped; the user's own configuration stays."""
    local = subprocess.run(["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True)
    names = [*local.stdout.split(), "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF", "GIT_TRACE", "GIT_PROXY_COMMAND", "GIT_SSH"]
    made = git_environment(dict.fromkeys([*names, "GIT_CONFIG_GLOBAL", "HOME"], "/evil"))
    config = {name for name in names if name.startswith("GIT_CONFIG_")}
    assert {name for name, value in made.items() if value == "/evil"} == {"GIT_CONFIG_GLOBAL", "HOME"} | config


@pytest.mark.shows("S17", "S18")
@pytest.mark.parametrize("variable", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"])
def test_in_a_hook_of_another_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Whether files are ignored or committed is asked only of the repository being cleaned."""
    root, other = repository(tmp_path / "repo"), repository(tmp_path / "other")
    for name in ("committed.bin", "changed.bin", "ignored.bin"):
        write(root, name, A)
        write(other, name, B)
    write(root, ".gitignore", b"/ignored.bin\n")
    commit(root)
    write(root, "changed.bin", B)
    commit(other)
    value = {"GIT_WORK_TREE": other, "GIT_INDEX_FILE": other / ".git/index"}.get(variable, other / ".git")
    monkeypatch.setenv(variable, str(value))
    plan = plan_clean(root, root, tmp_path / "out", LIMIT)
    assert [move.path for move in plan.moves] == ["committed.bin"]
    assert [kept.path for kept in plan.kept] == ["changed.bin"]


# --- a hostile repository -----------------------------------------------------------------------------------


@pytest.mark.shows("S18")
def test_nothing_that_a_repository_configures_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every program configured that git could start, no look, plan, setup or restore starts one."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    trap = Trap(tmp_path / "trap")
    root = repository(tmp_path / "repo")
    write(root, ".gitattributes", ATTRIBUTES)
    for name in ("a.bin", "b.dat", "c.bin"):
        write(root, name, A)
    write(root, "assets.json", b'{"assets": []}')
    commit(root)
    sign(root)
    (root / "c.bin").touch()  # looks changed, so that git would compare its content through the filter
    with armed(root / ".git", trap):
        for name in ("status", "log"):
            subprocess.run(["git", name], cwd=root, capture_output=True, check=False)
            assert trap.ran(), f"the trap does not work: git {name} has not started it"
        # As new as its files: git looks into them, too.
        os.utime(root / ".git/index", ns=(0, (root / "a.bin").stat().st_mtime_ns))

        assert len(survey(root, LIMIT, root).files) == 3
        plan = plan_clean(root, root, tmp_path / "out", LIMIT)
        assert [move.path for move in plan.moves] == ["a.bin", "b.dat", "c.bin"]
        assert len(find_large_blobs(Git(root), LIMIT).blobs) == 1
        assert list(git_steps(find_project(environ={}, cwd=root)))
        assert Restorer(root, [tmp_path / "out"]).left_out() == []
        (root / "a.bin").write_bytes(B)
        assert [kept.path for kept in plan_clean(root, root, tmp_path / "out", LIMIT).kept] == ["a.bin"]
        assert trap.ran() == ""


@pytest.mark.shows("S18")
def test_nothing_is_fetched_to_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing objects promised by a remote that is a program do not start that program."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    trap = Trap(tmp_path / "trap")
    root = repository(tmp_path / "repo")
    write(root, "a.bin", A)
    blob = git(root, "rev-parse", f"{commit(root)}:a.bin")
    (root / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with open(root / ".git/config", "a", encoding="utf-8") as config:
        config.write(
            f'[remote "origin"]\n\turl = ext::{trap.program}\n\tpromisor = true\n\tpartialclonefilter = blob:none\n'
            "[extensions]\n\tpartialClone = origin\n[core]\n\trepositoryformatversion = 1\n"
            '[protocol "ext"]\n\tallow = always\n'
        )
    subprocess.run(["git", "cat-file", "-p", blob], cwd=root, capture_output=True, check=False)
    assert trap.ran(), "the trap does not work"
    assert Git(root).blob_sizes([blob]) == {}
    assert "partial clone, which lacks 1 object of its history" in find_large_blobs(Git(root), LIMIT).advice
    assert trap.ran() == ""


# --- what git says ------------------------------------------------------------------------------------------


@pytest.mark.shows("S17")
def test_another_work_tree_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """If git means another folder than the one with the .git, nothing is asked: the answer would be about that one."""
    root, other = repository(tmp_path / "repo"), tmp_path / "other"
    other.mkdir()
    git(root, "config", "core.worktree", str(other))
    with pytest.raises(GitUnusable, match=r"the work tree of .*/repo is .*/other"):
        Git.of(root)
    inner = write(repository(tmp_path / "outer"), "inner/.git/x", b"").parents[1]
    with pytest.raises(GitUnusable, match=r"the work tree of .*/inner is .*/outer"):
        Git.of(inner)


@pytest.mark.shows("S22")
def test_a_repository_of_another_user(tmp_path: Path) -> None:
    """Git's refusal is passed on with the full command that resolves it."""
    words = (
        b"fatal: detected dubious ownership in repository at '/srv/it'\n"
        b"To add an exception for this directory, call:\n\n\tgit config --global --add safe.directory /srv/it\n"
    )
    text = complaint("rev-parse", words, Path("/srv/it"))
    assert "dubious ownership in repository at '/srv/it'" in text
    assert text.endswith("`git config --global --add safe.directory /srv/it`")
    if os.geteuid() == 0:
        root = repository(tmp_path / "repo")
        os.chown(root, 12345, 12345)
        os.chown(root / ".git", 12345, 12345)
        with pytest.raises(GitUnusable, match=r"git config --global --add safe\.directory"):
            Git.of(root)


def test_what_is_uncommitted_is_found_without_status(tmp_path: Path) -> None:
    """A file that was only touched counts as committed; one changed to the same length and time does not."""
    root = repository(tmp_path / "repo")
    for name in ("touched", "changed", "staged", "same", "odd\nname"):
        write(root, name, A)
    commit(root)
    (root / "touched").write_bytes(A)
    os.utime(root / "touched", (1, 1))
    write(root, "changed", A[::-1])
    write(root, "staged", B)
    git(root, "add", "staged")
    write(root, "odd\nname", B)
    asked = Git(root)
    index = asked.index()
    assert asked.uncommitted(index, [*index, "unknown"]) == {"changed", "staged", "odd\nname"}
    unborn = repository(tmp_path / "unborn")
    write(unborn, "new", A)
    git(unborn, "add", "new")
    assert Git(unborn).uncommitted(Git(unborn).index(), ["new"]) == {"new"}


@pytest.mark.shows("S17")
def test_what_git_was_told_not_to_watch_is_compared(tmp_path: Path) -> None:
    """A file that git no longer watches, changed or not, is judged by its content."""
    root = repository(tmp_path / "repo")
    for name in ("same", "assumed", "skipped", "both"):
        write(root, name, A)
    commit(root)
    git(root, "update-index", "--assume-unchanged", "same", "assumed", "both")
    git(root, "update-index", "--skip-worktree", "skipped", "both")
    for name in ("assumed", "skipped", "both"):
        write(root, name, B)
    assert git(root, "status", "--porcelain") == ""
    index = Git(root).index()
    assert Git(root).uncommitted(index, index) == {"assumed", "skipped", "both"}


@pytest.mark.shows("S22")
def test_what_git_converts_is_compared_as_git_would(tmp_path: Path) -> None:
    """A touched file with converted line ends or keywords counts as committed; a changed one does not."""
    root = repository(tmp_path / "repo")
    write(root, ".gitattributes", b"*.txt text eol=crlf ident\n*.wide working-tree-encoding=UTF-16\n*.z filter=z\n")
    names = [
        "same.txt",
        "changed.txt",
        'odd"\n\\\xff.txt'.encode("latin-1").decode("utf-8", "surrogateescape"),
        "a.wide",
    ]
    for name in names[:3]:
        (root / os.fsencode(name).decode("utf-8", "surrogateescape")).write_bytes(b"$Id: old $\r\na line\r\n" * 500)
    write(root, "a.wide", "\ufeffwide\n".encode("utf-16-le") * 500)
    write(root, "a.z", A)
    commit(root)
    write(root, "changed.txt", b"another\r\n" * 500)
    write(root, "a.z", B)
    for name in (*names, "a.z"):
        os.utime(root / name, (1, 1))
    assert Git(root).uncommitted(Git(root).index(), [*names, "a.z"]) == {"changed.txt", "a.z"}


@pytest.mark.shows("S17")
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_any_more_is_uncommitted(tmp_path: Path, kind: str) -> None:
    """A symlink to the same content, or a pipe, is not what was committed, and nobody waits for it."""
    root = repository(tmp_path / "repo")
    write(root, "a.bin", A)
    commit(root)
    (root / "a.bin").rename(tmp_path / "same")
    (root / "a.bin").symlink_to(tmp_path / "same") if kind == "link" else os.mkfifo(root / "a.bin")
    asked = Git(root, patience=5.0)
    assert asked.uncommitted(asked.index(), ["a.bin"]) == {"a.bin"}


def test_one_file_that_cannot_be_read_is_the_only_one_in_doubt(tmp_path: Path) -> None:
    """A file that git cannot open counts as changed, and the others are still compared."""
    root = repository(tmp_path / "repo")
    write(root, ".gitattributes", b"*.txt text eol=crlf\n")
    for name in ("a.txt", "gone.txt"):
        write(root, name, b"line\r\n" * 500)
    commit(root)
    asked = Git(root)
    index = asked.index()
    os.utime(root / "a.txt", (1, 1))
    (root / "gone.txt").unlink()
    assert asked.uncommitted(index, ["a.txt", "gone.txt"]) == {"gone.txt"}


@pytest.mark.shows("S17")
def test_more_filters_than_can_be_switched_off(tmp_path: Path) -> None:
    """If a repository configures more filters than a command line holds, git is not asked at all."""
    root = repository(tmp_path / "repo")
    write(root, "a.bin", A)
    commit(root)
    with open(root / ".git/config", "a", encoding="ascii") as config:
        config.writelines(f'[filter "{number:0200}"]\n\tclean = false\n' for number in range(5000))
    with pytest.raises(GitUnusable, match=r"could not be started: argument list too long.*nothing was moved"):
        plan_clean(root, root, tmp_path / "out", LIMIT)


def test_sha256_repositories(tmp_path: Path) -> None:
    """A repository whose objects have SHA-256 names is asked like any other."""
    root = tmp_path / "repo"
    root.mkdir()
    git(root, "init", "-q", "--object-format=sha256")
    write(root, "a.bin", A)
    commit(root)
    os.utime(root / "a.bin", (1, 1))
    assert [move.path for move in plan_clean(root, root, tmp_path / "out", LIMIT).moves] == ["a.bin"]
    (blob,) = find_large_blobs(Git(root), LIMIT).blobs
    assert (blob.paths, blob.is_current, blob.committed) == (("a.bin",), True, datetime(2026, 1, 1, 12, tzinfo=UTC))
