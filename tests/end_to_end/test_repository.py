"""A repository with large files, from the first look to the same bytes in another clone."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from grym_fetch import AssetManager
from grym_fetch.testing import seeded_bytes, serve_in_thread
from tests.end_to_end.command import Running, environment, run
from tests.repo.story import commit, git, repository, write

MODEL, VOICES, OLD = seeded_bytes(900_000, seed=1), seeded_bytes(700_000, seed=2), seeded_bytes(800_000, seed=3)
LIMIT = "0.5"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two large files, and a third one that exists only in history."""
    root = repository(tmp_path / "home" / "project")
    write(root, "old.bin", OLD)
    commit(root, day=1)
    (root / "old.bin").unlink()
    write(root, "models/model.ckpt", MODEL)
    write(root, "data/voices.tar.gz", VOICES)
    write(root, "src/train.py", b"print('hello')\n")
    (root / "data/voices.tar.gz").chmod(0o755)
    commit(root, day=2)
    return root


def hostile(program: str, *, is_split: bool) -> dict[str, bytes]:
    """The files of a repository without ``.git`` whose config starts a program; its two halves may be apart."""
    common = "a/common" if is_split else "a/bare"
    config = f'[core]\nrepositoryformatversion = 1\nfsmonitor = "touch {program}; false"\n'
    files = {
        "a/bare/HEAD": b"ref: refs/heads/main\n",
        "a/tree/file": b"1",
        f"{common}/objects/x": b"2",
        f"{common}/refs/y": b"3",
    }
    if not is_split:
        return files | {"a/bare/config": f"{config}bare = false\nworktree = ../tree\n".encode()}
    return files | {
        "a/common/config": f"{config}[extensions]\nworktreeConfig = true\n".encode(),
        "a/bare/commondir": b"../common\n",
        "a/bare/config.worktree": b"[core]\nbare = false\nworktree = ../tree\n",
    }


@pytest.mark.shows("M18", "S17")
@pytest.mark.parametrize("is_split", [False, pytest.param(True, marks=pytest.mark.sweep)])
def test_no_manifest_and_no_archive_makes_a_repository(tmp_path: Path, is_split: bool) -> None:
    """git obeys such a folder; if a manifest or an archive would create one, it is not there afterwards."""
    ran = tmp_path / "ran"
    files = hostile(str(ran), is_split=is_split)

    def look(top: Path) -> bool:
        folder = top / "a/bare"
        if folder.is_dir():
            subprocess.run(["git", "status"], cwd=folder, capture_output=True, check=False)
        return ran.exists()

    for name, content in files.items():
        write(tmp_path / "control", name, content)
    assert look(tmp_path / "control"), "git starts what the config names"
    ran.unlink()

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(tmp_path / "control", ".")
    for served, extract, code in ((files, False, 2), ({"v.tar": packed.getvalue()}, True, 3)):
        with serve_in_thread() as server:
            entries = [
                {
                    "id": f"n{number}",
                    "url": server.add(f"/{number}", content).url,
                    "localPath": name,
                    "checksum": hashlib.sha256(content).hexdigest(),
                    "extract": extract,
                }
                for number, (name, content) in enumerate(served.items())
            ]
            write(tmp_path, "assets.json", json.dumps({"assets": entries}).encode())
            done = run(tmp_path, "sync", "--all")
            assert (done.code, "makes a git repository together with" in done.err) == (code, True), done.err
            assert len(server.stats.requests) == (1 if extract else 0)
        for top in ("assets", "assets/v"):
            assert not look(tmp_path / top)
    assert not (tmp_path / "assets/v").exists()


@pytest.mark.shows("S17")
@pytest.mark.parametrize("last", ["HEAD", "objects", "refs"])
def test_no_two_manifests_make_a_repository(tmp_path: Path, last: str) -> None:
    """A second manifest that would complete what the first put there is refused, few files or many; others arrive."""
    files = {"bare/HEAD": b"ref: refs/heads/main\n", "bare/objects/x": b"x", "bare/refs/heads/x": b"y"}
    more = {f"more/{number}": b"%d" % number for number in range(20)}
    later = {name: content for name, content in files.items() if last in name.split("/")}
    with serve_in_thread() as server:
        for served in ({name: content for name, content in files.items() if name not in later}, later | more):
            entries = [
                {
                    "id": name.replace("/", "-"),
                    "url": server.add(f"/{name}", content).url,
                    "localPath": name,
                    "checksum": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                }
                for name, content in served.items()
            ]
            write(tmp_path, "assets.json", json.dumps({"assets": entries}).encode())
            done = run(tmp_path, "sync", "--all")
    assert (done.code, "makes a git repository together with" in done.err) == (4, True), done.err
    assert not (tmp_path / "assets" / next(iter(later))).exists()
    assert all((tmp_path / "assets" / name).read_bytes() == content for name, content in more.items())


@pytest.mark.shows("S21")
def test_from_a_heavy_repository_to_the_same_bytes_elsewhere(root: Path, tmp_path: Path) -> None:
    """Look, move out, commit, clone on another machine, fetch from a server: every byte is the same."""
    seen = run(root, "identify", LIMIT, "--history")
    assert seen.code == 0
    listing = seen.out.splitlines()
    assert listing[0].split() == ["879", "KiB", "models/model.ckpt"]
    assert listing[1].split() == ["684", "KiB", "data/voices.tar.gz"]
    assert "  /models/model.ckpt" in listing
    assert any("old.bin" in line and "no branch or tag ends with it" in line for line in listing)
    assert "git filter-repo" in seen.out

    with serve_in_thread() as server:
        base = server.add("/files/models/model.ckpt", MODEL).url.removesuffix("/models/model.ckpt")
        server.add("/files/data/voices.tar.gz", VOICES)
        into = ("--gitignore", "--add-to-manifest", "--base-url", base, "--config", "assets.json")
        done = run(root, "clean", LIMIT, "-y", *into)
        assert done.code == 0, done.err
        assert "git filter-repo" in done.out
        assert (tmp_path / "home/assets/models/model.ckpt").read_bytes() == MODEL
        assert not (root / "models/model.ckpt").exists()
        commit(root, day=3)
        assert git(root, "status", "--porcelain") == ""
        assert set(git(root, "ls-files").splitlines()) == {
            ".gitignore", "assets.json", "data/voices.tar.gz.asset-ref", "models/model.ckpt.asset-ref", "src/train.py",
        }  # fmt: skip

        (tmp_path / "elsewhere").mkdir()
        clone = tmp_path / "elsewhere" / "clone"
        git(tmp_path, "clone", "-q", str(root), str(clone))
        back = run(clone, "restore", "--all")
        assert back.code == 0, back.err
        assert (clone / "models/model.ckpt").read_bytes() == MODEL
        assert (clone / "data/voices.tar.gz").read_bytes() == VOICES
        assert run(clone, "sync").code == 0
        assert run(clone, "check").code == 0

    again = run(root, "restore", "model", "data")
    assert again.code == 0
    assert (root / "models/model.ckpt").read_bytes() == MODEL
    assert (root / "data/voices.tar.gz").read_bytes() == VOICES
    assert (root / "data/voices.tar.gz").stat().st_mode & 0o777 == 0o755
    assert run(root, "restore", "model").out == "already there: models/model.ckpt\n"


def test_the_arguments_of_the_document(root: Path) -> None:
    """Size, folder and target are where people expect them, and sizes may be fractions."""
    assert "no file is larger than 10.0 MiB" in run(root, "identify").out
    assert "voices" not in run(root, "identify", "0.5", "./models").out
    assert run(root, "clean", "0.5", "./models", "../my-assets", "--yes").code == 0
    assert (root / "../my-assets/model.ckpt").read_bytes() == MODEL
    assert "--external-assets-dir ../my-assets" in (root / "models/model.ckpt.asset-ref").read_text()
    missing = run(root, "restore", "--all")
    assert missing.code == 1
    assert "--external-assets-dir" in missing.err
    assert run(root, "restore", "models/model.ckpt", "--external-assets-dir", "../my-assets").code == 0
    assert (root / "models/model.ckpt").read_bytes() == MODEL


def test_nothing_is_moved_unasked(root: Path, tmp_path: Path) -> None:
    """Without a terminal and without -y, and with -n, everything stays; the answer no is respected."""
    done = run(root, "clean", LIMIT)
    assert done.code == 2
    assert "-y" in done.err
    dry = run(root, "clean", LIMIT, "-n")
    assert dry.code == 0
    assert "models/model.ckpt" in dry.out
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "grym_fetch", "clean", LIMIT],
        cwd=root, env=environment(), stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        os.close(theirs)
        os.write(ours, b"n\n")
        _, said = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 1
    assert said.decode().endswith("nothing was moved\n")
    assert (root / "models/model.ckpt").read_bytes() == MODEL
    assert not (tmp_path / "home/assets").exists()


def test_json(root: Path) -> None:
    """A program reads one object for a look, and one for each file that is moved or brought back."""
    (looked,) = run(root, "identify", LIMIT, "--json", "--history").events
    assert looked["files"] == [
        {"path": "models/model.ckpt", "size": 900_000},
        {"path": "data/voices.tar.gz", "size": 700_000},
    ]
    assert looked["bytes"] == 1_600_000
    assert looked["by_type"] == [
        {"name": ".ckpt", "files": 1, "bytes": 900_000},
        {"name": ".gz", "files": 1, "bytes": 700_000},
    ]
    history = looked["history"]
    assert isinstance(history, list)
    assert [(blob["paths"], blob["current"]) for blob in history] == [
        (["models/model.ckpt"], True), (["old.bin"], False), (["data/voices.tar.gz"], True),
    ]  # fmt: skip
    assert [e["path"] for e in run(root, "clean", LIMIT, "-n", "--json").of("would_move")] == [
        "models/model.ckpt",
        "data/voices.tar.gz",
    ]
    moved = run(root, "clean", LIMIT, "-y", "--json")
    assert [event["id"] for event in moved.of("moved")] == ["model", "voices.tar"]
    assert moved.of("clean")[0]["gitignore"] == ["/data/voices.tar.gz", "/models/model.ckpt"]
    assert [event["source"] for event in run(root, "restore", "--all", "--json").events] == ["external", "external"]


def test_json_of_what_stays(root: Path) -> None:
    """Each file that stays is an object with its reason, and the last object is always there, moved or not."""
    write(root, "models/model.ckpt", MODEL[::-1])
    done = run(root, "clean", LIMIT, "-y", "--json")
    assert done.code == 2
    assert [event["type"] for event in done.events] == ["not_moved", "moved", "clean"]
    assert (done.of("not_moved")[0]["path"], done.of("not_moved")[0]["why"]) == ("models/model.ckpt", "uncommitted")
    again = run(root, "clean", LIMIT, "-y", "--json")
    assert [event["type"] for event in again.events] == ["not_moved", "clean"]


def test_no_password_gets_into_the_manifest(root: Path) -> None:
    """Everybody could read it there; nothing is moved."""
    base = "https://me:hunter2@example.org/f"
    done = run(root, "clean", LIMIT, "-y", "--add-to-manifest", "--base-url", base, "--config", "assets.json")
    assert (done.code, "for everyone to read" in done.err, "hunter2" in done.err) == (2, True, False)
    assert (root / "models/model.ckpt").exists()


def test_exit_codes(root: Path, tmp_path: Path) -> None:
    """Usage 2, integrity 3, storage 4, missing 1; each with a message that says what to do."""
    inside = run(root, "clean", LIMIT, ".", "out", "-y")
    assert (inside.code, "inside the repository" in inside.err) == (2, True)
    assert run(root, "identify", "lots").code == 2
    assert run(root, "identify", "10", "nowhere").code == 2
    assert run(root, "restore").code == 2
    assert run(root, "clean", LIMIT, "-y", "--add-to-manifest").code == 2
    without_git = run(tmp_path, "identify", LIMIT, "--history")
    assert (without_git.code, "not a git repository" in without_git.err) == (2, True)
    write(root, "models/model.ckpt", MODEL[::-1])
    dirty = run(root, "clean", LIMIT, "-y")
    assert (dirty.code, "--allow-dirty" in dirty.out) == (2, True)
    assert (root / "data/voices.tar.gz.asset-ref").exists()
    write(tmp_path, "home/assets/models/model.ckpt", MODEL)
    taken = run(root, "clean", LIMIT, "-y", "--allow-dirty")
    assert (taken.code, "rename one of the two" in taken.err) == (4, True)
    unknown = run(root, "restore", "nothing")
    assert (unknown.code, "was not moved" in unknown.err) == (2, True)
    write(root, "data/voices.tar.gz", b"mine")
    in_the_way = run(root, "restore", "--all")
    assert (in_the_way.code, "--force" in in_the_way.err) == (4, True)
    write(tmp_path, "home/assets/data/voices.tar.gz", b"rot")
    corrupt = run(root, "restore", "--all", "--force")
    assert (corrupt.code, corrupt.err.count("checksum mismatch")) == (3, 1)
    assert "Traceback" not in "".join(done.err for done in (inside, dirty, taken, unknown, in_the_way, corrupt))


@pytest.mark.shows("S19")
def test_where_the_assets_folder_came_as_a_symlink(root: Path, tmp_path: Path) -> None:
    """The error says what is wrong and what to do, and is not called a bug; nothing is written behind the link."""
    write(root, "assets.json", b'{"assets": []}')
    (root / "assets").symlink_to(".git")
    commit(root, day=3)
    assert run(root, "clean", LIMIT, ".", str(tmp_path / "out"), "-y").code == 0
    refused = run(root, "restore", "--all", "--external-assets-dir", str(tmp_path / "out"))
    assert (refused.code, refused.out) == (4, "")
    assert refused.err.startswith("error: the assets folder is a symlink, which counts only where you name it;")


@pytest.mark.shows("S21")
@pytest.mark.parametrize("manifest", [b"<<<<<<< HEAD\n", b'{"assets": [{"id": "a"}]}'])
def test_the_way_back_needs_no_manifest(root: Path, manifest: bytes) -> None:
    """In the middle of a merge, an invalid one is told, and keeps nothing from coming back that is on this machine."""
    assert run(root, "clean", LIMIT, "-y").code == 0
    write(root, "assets.json", manifest)
    done = run(root, "restore", "--all")
    assert (done.code, done.err.count("warning: "), "cannot be used" in done.err) == (0, 1, True)
    assert (root / "models/model.ckpt").read_bytes() == MODEL
    assert run(root, "restore", "nothing").code == 2


@pytest.mark.shows("S21")
def test_a_damaged_placeholder_is_told(root: Path) -> None:
    """What it stands for is not forgotten: an error with the two ways out, while the others come back."""
    assert run(root, "clean", LIMIT, "-y").code == 0
    placeholder = root / "models/model.ckpt.asset-ref"
    placeholder.write_bytes(b"<<<<<<< HEAD\n" + placeholder.read_bytes())
    done = run(root, "restore", "--all", "-q")
    assert done.code == 1
    assert done.err == (
        "error: models/model.ckpt.asset-ref is damaged: it does not begin with "
        "'grym-fetch asset reference, version 1'\n"
        "hint: `git restore models/model.ckpt.asset-ref` puts it back, or try `grym-fetch restore models/model.ckpt`.\n"
    )
    assert (root / "data/voices.tar.gz").exists()
    assert run(root, "restore", "models/model.ckpt").code == 0
    assert not placeholder.exists()


@pytest.mark.sweep
def test_the_way_back_is_named(root: Path, tmp_path: Path) -> None:
    """The printed command brings the files back, wherever they went."""
    out = tmp_path / "some where"
    moved = run(root, "clean", LIMIT, ".", str(out), "-y").out
    assert f"`grym-fetch restore --all --external-assets-dir '{out}'` brings files back" in moved
    assert run(root, "restore", "--all", "--external-assets-dir", str(out)).code == 0
    assert "`grym-fetch restore --all` brings files back" in run(root, "clean", LIMIT, "-y").out
    assert run(root, "restore", "--all").code == 0


def test_entries_of_an_interrupted_run_are_made_up_for(root: Path) -> None:
    """Files moved by an earlier run are added to the manifest by the next run that is asked to."""
    assert run(root, "clean", LIMIT, "-y").code == 0
    (root / "assets.json").write_text('{\n  "assets": []\n}\n')
    done = run(root, "clean", LIMIT, "-y", "--gitignore", "--add-to-manifest", "--base-url", "https://example.org/f")
    assert done.code == 0, done.err
    entries = json.loads((root / "assets.json").read_text())["assets"]
    assert {entry["url"] for entry in entries} == {
        "https://example.org/f/models/model.ckpt",
        "https://example.org/f/data/voices.tar.gz",
    }
    assert (root / ".gitignore").read_text() == "/data/voices.tar.gz\n/models/model.ckpt\n"


@pytest.mark.shows("S21")
def test_a_killed_clean_loses_nothing(tmp_path: Path) -> None:
    """Killed while moving, it has lost no byte, and the next run finishes."""
    root = repository(tmp_path / "project")
    content = {f"file{number}.bin": seeded_bytes(600_000 + number, seed=number) for number in range(12)}
    for name, data in content.items():
        write(root, name, data)
    with Running(root, "clean", LIMIT, "-y", "--json") as running:
        running.until("moved")
        running.send(signal.SIGKILL)
        running.finish()
    for name, data in content.items():
        there = [path for path in (root / name, tmp_path / "assets" / name) if path.exists()]
        assert there
        assert all(path.read_bytes() == data for path in there)
    assert run(root, "clean", LIMIT, "-y").code == 0
    assert sorted(path.name for path in root.glob("*.bin*")) == sorted(f"{name}.asset-ref" for name in content)
    assert run(root, "restore", "--all").code == 0
    assert {path.name: path.read_bytes() for path in root.glob("*.bin")} == content


async def test_from_python(root: Path) -> None:
    """The manager restores by path and by id, from the external folder."""
    assert run(root, "clean", LIMIT, "-y").code == 0
    (root / "assets.json").write_text('{"assets": []}')
    async with AssetManager(root / "assets.json", environ={}) as manager:
        path = await manager.restore_asset("models/model.ckpt")
        assert path == root / "models/model.ckpt"
        assert path.read_bytes() == MODEL
        assert (await manager.restore_asset("voices.tar")).read_bytes() == VOICES


@pytest.mark.sweep
@pytest.mark.shows("S21")
def test_what_git_makes_of_a_restored_file_is_said(root: Path) -> None:
    """After a restore in a clone, the output says which placeholders are missed, and which files git would take in."""
    assert "dry run: nothing was moved" in run(root, "clean", LIMIT, "-n").out
    run(root, "clean", LIMIT, "-y")
    assert run(root, "restore", "--all").err == ""  # nothing was committed: git sees what it saw before
    run(root, "clean", LIMIT, "-y")
    commit(root, day=3)
    said = run(root, "restore", "models/model.ckpt").err.splitlines()
    assert said[0].startswith("git shows the placeholders as deleted; do not commit that: `git restore --")
    assert said[1:] == [
        "git does not ignore 1 restored file, and `git add -A` would commit them; lines for .gitignore:",
        "  /models/model.ckpt",
    ]
    git(root, "restore", "--", "*.asset-ref")
    write(root, ".gitignore", b"/models/model.ckpt\n")
    commit(root, day=4)
    assert git(root, "status", "--porcelain") == ""
    assert len(run(root, "restore", "models/model.ckpt").err.splitlines()) == 1
