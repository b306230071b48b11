"""What a person sees: stdout and stderr on one terminal, for every command that shows progress."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from grym_fetch.testing import AssetServer, Gate, Hold, seeded_bytes, serve_in_thread
from tests.end_to_end.command import environment, run
from tests.support.project import Project
from tests.support.sweeps import typical
from tests.support.terminal import Terminal

KIB = 1024
SIZE = 300 * KIB


@pytest.fixture
def gate() -> Gate:
    """Holds back the last byte of each file, so that the display is on the screen when the result comes."""
    return Gate()


def serve(server: AssetServer, name: str, gate: Gate) -> tuple[str, bytes]:
    content = seeded_bytes(SIZE, seed=len(name))
    return server.add(f"/{name}.bin", content, faults=[Hold(gate, at=SIZE - 1)]).url, content


def on_terminal(folder: Path, gate: Gate | None, *arguments: str) -> list[str]:
    """Run a command, let it draw its display, then let it end; return what is then on the screen."""
    with Terminal(folder, *arguments, environ=environment()) as terminal:
        if gate is not None:
            terminal.until(lambda rows: any("active" in row for row in rows))
            gate.open()
        shown = terminal.finish()
        assert terminal.code == 0, shown
    return shown


def digest(shown: str) -> str:
    return shown.partition("sha256:")[2].rstrip("…")


@pytest.mark.shows("U7")
def test_add_tells_its_result_below_the_display(tmp_path: Path, server: AssetServer, gate: Gate) -> None:
    """One line, complete and alone in its row; an asset just measured is not called unverified."""
    (tmp_path / ".git").mkdir()
    url, _ = serve(server, "bar", gate)
    first, *rest = on_terminal(tmp_path, gate, "add", url)
    assert first.startswith("there was no manifest: created")  # a long path follows in the next row
    added = rest[-1]
    assert added.startswith("✓ added bar   300 KiB  sha256:")
    assert len(digest(added)) == 12
    assert len(rest) <= 2, rest  # the line before is the end of a long path


@pytest.mark.sweep
def test_pin_tells_of_each(tmp_path: Path, server: AssetServer, gate: Gate) -> None:
    """Four assets give four aligned lines, and nothing else."""
    project = Project(tmp_path)
    for name in ("a", "bb", "ccc", "dddd"):
        url, content = serve(server, name, gate)
        project.add(name, [url], content, pinned=False, size=None)
    shown = on_terminal(tmp_path, gate, "pin")
    assert sorted(row.split("  ")[0] for row in shown) == [f"✓ pinned {name}" for name in ("a", "bb", "ccc", "dddd")]
    assert len({row.index("sha256:") for row in shown}) == 1


def test_sync_leaves_a_line_for_each_file_and_a_sentence(tmp_path: Path, server: AssetServer, gate: Gate) -> None:
    """The display disappears; the second time, nothing is drawn at all."""
    project = Project(tmp_path)
    for name in ("a", "bb"):
        url, content = serve(server, name, gate)
        project.add(name, [url], content)
    *files, last = on_terminal(tmp_path, gate, "sync")
    assert sorted(row[:4].strip() for row in files) == ["✓ a", "✓ bb"]
    assert last.startswith("✓ 2 files ready in ./assets · 600 KiB in ")
    shown = on_terminal(tmp_path, None, "sync")
    assert shown == ["= a   already there", "= bb  already there", "✓ 2 files ready in ./assets · all already there"]


def test_something_is_told_before_a_server_answers(tmp_path: Path) -> None:
    """On a terminal and in a pipe: what was asked for, while nobody has even taken the connection."""
    project = Project(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        project.add("a", [f"http://127.0.0.1:{silent.getsockname()[1]}/a.bin"], b"x" * SIZE)
        with Terminal(tmp_path, "sync", environ=environment()) as terminal:
            terminal.until(lambda rows: any("0 of 1 done" in row for row in rows))
            terminal.type(b"\x03\x03")
            terminal.finish()
        command = [sys.executable, "-m", "grym_fetch", "sync"]
        with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "1 file, 300 KiB\n"
            process.kill()


@pytest.mark.sweep
def test_import_and_path_end_below_the_display(tmp_path: Path, server: AssetServer, gate: Gate) -> None:
    """Data for a script is on a line of its own, too."""
    (tmp_path / ".git").mkdir()
    url, _ = serve(server, "bar", gate)
    (tmp_path / "list").write_text(f"{url}\n  out=bar.bin\n")
    shown = on_terminal(tmp_path, gate, "import", "list", "--format", "aria2")
    assert shown[-1].startswith("✓ added bar.bin   300 KiB  sha256:")
    (tmp_path / "assets/bar.bin").unlink()
    shown = on_terminal(tmp_path, None, "path", "bar.bin")
    assert shown[-1].endswith("bar.bin")
    assert shown[-2].startswith("✓ bar.bin") or shown[-3].startswith("✓ bar.bin")


@pytest.mark.parametrize("times", typical([1, 2], 1))
@pytest.mark.shows("P8")
def test_ctrl_c_says_where_it_was(tmp_path: Path, server: AssetServer, gate: Gate, times: int) -> None:
    """Once, in a row of its own, with what to do; the second one also says that it ended at once."""
    project = Project(tmp_path)
    url, content = serve(server, "a", gate)
    project.add("a", [url], content)
    with Terminal(tmp_path, "sync", environ=environment()) as terminal:
        terminal.until(lambda rows: any("1 active" in row for row in rows))
        terminal.type(b"\x03" * times)
        shown = terminal.finish()
        assert terminal.code == 130
    told = [row for row in shown if "interrupted" in row]
    assert len(told) == 1
    assert re.fullmatch(r"interrupted at [\d.]+ of 300 KiB(, ended at once)?; run the same command to go on", told[0])
    assert "ready" not in "".join(shown)
    if times == 1:
        assert shown == told


def test_failures_are_told_once_and_the_counts_last(tmp_path: Path, server: AssetServer, gate: Gate) -> None:
    """During the run, a few words; at the end a block for each, broken between words, and then what is there."""
    project = Project(tmp_path)
    url, content = serve(server, "good", gate)
    project.add("good", [url], content)
    # From a host of its own: it waits for nobody.
    with serve_in_thread() as other:
        project.add("lost", [other.url("/nothing.bin")], content)
        with Terminal(tmp_path, "sync", "--retries", "0", columns=60, environ=environment()) as terminal:
            terminal.until(lambda rows: "✗ lost  404" in rows)
            gate.open()
            shown = terminal.finish()
            assert terminal.code == 1
    assert [row for row in shown if row.startswith("✗ lost")] == ["✗ lost  404"]
    assert "error: lost: could not be fetched: status 404: not found" in shown
    assert sum("could not be fetched" in row for row in shown) == 1
    assert shown[-1].startswith("  ") or shown[-1].startswith("✗ 1 of 2 files ready in ./assets · 1 failed")
    assert any(row.startswith("✗ 1 of 2 files ready") for row in shown[-2:])
    assert b"\x1b[1;31merror:\x1b[0m" in terminal.written


def test_list_and_check_say_what_to_do_next(tmp_path: Path, server: AssetServer) -> None:
    """Both use the same words; a file of the right size that is known to be wrong is not called present."""
    project = Project(tmp_path)
    content = seeded_bytes(SIZE, seed=1)
    for name in ("good", "wrong", "模型"):
        project.add(name, [server.add(f"/{len(name)}.bin", content).url], content)
    for name, found in (("good", content), ("wrong", content[::-1])):
        place = project.assets / "models" / f"{name}.bin"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(found)

    def told(command: str) -> list[str]:
        with Terminal(tmp_path, command, environ=environment()) as terminal:
            return terminal.finish()

    assert told("list") == [
        "ID     STATE       SIZE  REQUIRED",
        "good   present  300 KiB  required",
        "wrong  present  300 KiB  required",
        "模型   missing  300 KiB  required",
        "1 missing: grym-fetch sync",
        "2 not verified yet: grym-fetch check",
    ]
    head, *rows, last = told("check")
    assert head.split() == ["STATE", "ID", "SIZE", "PATH", "NOTE"]
    assert [row.split()[:2] for row in rows] == [
        ["verified", "good"],
        ["corrupt", "wrong"],
        ["missing", "模型"],
    ]
    assert last == "1 missing, 1 corrupt: grym-fetch sync"
    assert told("list")[2:] == [
        "wrong  corrupt   300 KiB  required",
        "模型   missing   300 KiB  required",
        "1 missing, 1 corrupt: grym-fetch sync",
    ]
    plan = run(tmp_path, "sync", "--dry-run").out
    assert "fetch  wrong" in plan


def test_a_pipe_gets_no_bar_and_no_colour(tmp_path: Path, server: AssetServer) -> None:
    """With --progress bar it gets one; with none, only how each file ended."""
    project = Project(tmp_path)
    content = seeded_bytes(SIZE, seed=1)
    project.add("a", [server.add("/a.bin", content).url], content)
    assert "\x1b" not in run(tmp_path, "sync").err
    assert "\x1b" in run(tmp_path, "sync", "--force", "--progress", "bar").err
    with Terminal(tmp_path, "sync", "--force", "--progress", "plain", environ=environment()) as terminal:
        assert terminal.finish()[-1].startswith("1 file ready in ./assets · 300 KiB in ")
    assert b"\x1b[2K" not in terminal.written


def test_a_large_manifest_is_told_to_be_read(tmp_path: Path) -> None:
    """The first feedback comes before the reading, and is gone with it."""
    project = Project(tmp_path)
    project.add("a", ["https://example.org/a"], b"a", description="long " * 120_000)
    with Terminal(tmp_path, "path", "a", "--offline", environ=environment()) as terminal:
        shown = terminal.finish()
    assert "\r\x1b[Kreading assets.json, 586 KiB …\r\x1b[K".encode() in terminal.written
    assert "reading" not in shown[0]
