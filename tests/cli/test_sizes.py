"""`--size` beside the positional size of `identify` and `clean`; and the manifest that `clean` creates."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from grym_fetch.cli.sizes import Size, exact_size
from grym_fetch.core.manifest_parser import parse_manifest
from tests.cli.running import invoke

KIB = 1024


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a file of 600 KiB in a folder, and one of 3 MiB."""
    root = tmp_path / "repo"
    (root / "data").mkdir(parents=True)
    (root / "data/a.bin").write_bytes(bytes(600 * KIB))
    (root / "b.bin").write_bytes(bytes(3 * KIB * KIB))
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "--quiet"], ["add", "-A"], ["commit", "--quiet", "-m", "x"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.chdir(root)
    return root


def found(*arguments: str, **environ: str) -> list[str]:
    """The files listed by `identify`."""
    done = invoke("identify", "--json", *arguments, **environ)
    assert done.exit_code == 0, done.output
    return sorted(each["path"] for each in json.loads(done.stdout)["files"])


@pytest.mark.posix
@pytest.mark.parametrize("size", ["500KB", "500k", "0.5M", "0.5", "512000B", "0.5 MiB", "500 KB"])
def test_a_size_bears_its_unit(size: str) -> None:
    """Units are powers of 1024, and a bare number is MB, like SIZE_MB."""
    assert found("--size", size) == ["b.bin", "data/a.bin"]
    assert found("--size", "1MB") == ["b.bin"]
    assert found("--size", "1GB") == []


@pytest.mark.posix
def test_a_file_that_only_the_history_has_fails_too(repository: Path) -> None:
    """`--fail` is about whatever is listed."""
    for line in (
        ["rm", "--quiet", "b.bin"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "y"],
    ):
        subprocess.run(["git", "-C", str(repository), *line], check=True)
    assert invoke("identify", "1", "--fail").exit_code == 0
    assert invoke("identify", "1", "--fail", "--history").exit_code == 1
    assert invoke("identify", "9", "--fail", "--history").exit_code == 0


@pytest.mark.posix
def test_what_a_partial_clone_has_is_listed_all_the_same(repository: Path) -> None:
    """That some of the history is not there is said, and is the exit code only if nothing makes another one."""
    clone = repository.parent / "clone"
    for line in (
        ["-C", str(repository), "config", "uploadpack.allowFilter", "true"],
        ["clone", "--quiet", "--no-checkout", "--filter=blob:none", repository.as_uri(), str(clone)],
    ):
        subprocess.run(["git", *line], check=True, capture_output=True)
    (clone / "c.bin").write_bytes(bytes(2_000_000))
    for size, code in (("1", 1), ("9", 2)):
        done = invoke("identify", size, str(clone), "--fail", "--history")
        assert done.exit_code == code
        assert "not all of the history was searched" in done.stderr


@pytest.mark.posix
def test_the_folder_comes_first_then() -> None:
    """With --size there is no SIZE_MB before the folder; without it, nothing has changed."""
    assert found("--size", "500KB", "data") == found("0.5", "data") == ["a.bin"]
    assert found("1") == ["b.bin"]
    assert found() == []
    assert invoke("identify", "--size", "1MB", "1", "data").exit_code == 2


@pytest.mark.posix
def test_a_size_in_the_environment_is_a_default() -> None:
    """It does not change the meaning of the words on the line."""
    assert found(GRYM_FETCH_SIZE="500KB") == ["b.bin", "data/a.bin"]
    assert found("1", "data", GRYM_FETCH_SIZE="500KB") == []


@pytest.mark.posix
@pytest.mark.parametrize("arguments", [["--size", "much"], ["--size", "-1MB"], ["--size", "1XB"], ["data"], ["-1"]])
@pytest.mark.parametrize("command", ["identify", "clean"])
def test_what_is_no_size_is_wrong_usage(command: str, arguments: list[str]) -> None:
    """The error says what is allowed."""
    assert invoke(command, *arguments).exit_code == 2


@pytest.mark.posix
def test_clean_takes_the_same(repository: Path, tmp_path: Path) -> None:
    """With --size only the folder and the target follow."""
    done = invoke("clean", "--size", "500KB", "data", str(tmp_path / "target"), "--yes")
    assert done.exit_code == 0, done.output
    assert [path.name for path in (tmp_path / "target").rglob("*.bin")] == ["a.bin"]
    assert (repository / "b.bin").is_file()


@pytest.mark.posix
def test_clean_makes_a_manifest_where_there_is_none(repository: Path, tmp_path: Path) -> None:
    """It is at the repository's root, even if run in a subfolder; an existing manifest is added to."""
    where = ["--yes", "--add-to-manifest", "--base-url", "https://h.example/files"]
    done = invoke("clean", "--size", "1MB", ".", str(tmp_path / "target"), *where)
    assert done.exit_code == 0, done.output
    manifest = repository / "assets.json"
    assert [asset.local_path for asset in parse_manifest(manifest.read_bytes(), "m").manifest.assets] == ["b.bin"]
    done = invoke("clean", "--size", "500KB", "data", str(tmp_path / "target"), *where)
    assert done.exit_code == 0, done.output
    assert len(parse_manifest(manifest.read_bytes(), "m").manifest.assets) == 2


@pytest.mark.posix
@pytest.mark.parametrize("size", ["1B", "10B", "3KB", "1234567B", "0.1KB", "2MB", "0", "0.3GB"])
def test_what_identify_proposes_is_the_same_size(size: str) -> None:
    """To the byte, and as `clean` reads it."""
    command = exact_size(Size().convert(size, None, None))
    assert Size().convert(command, None, None) == Size().convert(size, None, None)
    assert re.fullmatch(r"\d+[KMG]?B", command)


@pytest.mark.posix
def test_what_identify_proposes_is_understood() -> None:
    """The command can be run as it is printed."""
    said = invoke("identify", "--size", "10B").stderr
    assert said == "to move them out of the repository: grym-fetch clean --size=10B .\n"
    assert invoke(*shlex.split(said.partition("grym-fetch ")[2]), "-n").exit_code == 0


@pytest.mark.posix
def test_what_is_needed_where_it_is_is_no_failure(repository: Path) -> None:
    """It is told, unless quietly, and the others are moved."""
    (repository / ".gitattributes").write_bytes(b"#" * 9000)
    done = invoke("clean", "0.001", "-n")
    assert (done.exit_code, "not moved: .gitattributes: git reads it where it is" in done.stdout) == (0, True)
    done = invoke("clean", "0.001", "-y", "-q")
    assert (done.exit_code, done.output) == (0, "")
    assert (repository / "b.bin.asset-ref").exists()


@pytest.mark.posix
def test_quiet_does_not_hide_what_is_left(repository: Path) -> None:
    """An exit code other than 0 has its reason on stderr."""
    (repository / "b.bin").write_bytes(bytes(4 * KIB * KIB))
    done = invoke("clean", "2", "-y", "-q")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "not moved: b.bin: has changes that are not committed; commit them, or use --allow-dirty\n"


@pytest.mark.posix
def test_clean_adds_to_a_manifest_in_the_target(repository: Path, tmp_path: Path) -> None:
    """The folder is locked by the clean itself, which is nobody else who changes the manifest."""
    manifest = tmp_path / "target" / "assets.json"
    manifest.parent.mkdir()
    manifest.write_text('{"version": "1", "assets": []}')
    where = ["--yes", "--add-to-manifest", "--base-url", "https://h.example/files", "--config", str(manifest)]
    done = invoke("clean", "--size", "1MB", ".", str(manifest.parent), *where)
    assert done.exit_code == 0, done.output
    assert [asset.local_path for asset in parse_manifest(manifest.read_bytes(), "m").manifest.assets] == ["b.bin"]
