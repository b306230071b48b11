"""The pytest plugin in its users' projects: real runs of pytest, including the examples of the page on testing."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from grym_fetch.testing import AssetServer, MockAssetManager, SeededContent
from tests.end_to_end.command import environment
from tests.support.sweeps import typical

PAGE = Path(__file__).parent.parent.parent / "docs" / "testing.md"


def run_pytest(folder: Path, *arguments: str, **more: str) -> tuple[dict[str, int], str]:
    """Run pytest on a folder, with warnings as errors; return the counts of its last line, and all its output."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", "-W", "error", "-ra"]
    if "no:asyncio" not in arguments:
        command += ["-o", "asyncio_default_fixture_loop_scope=function"]  # if unset, there is a warning
    done = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=environment(**more) | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    said = done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    return {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", last)}, said


def project(folder: Path, **modules: str) -> Path:
    """Write modules into a folder of their own."""
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """The examples of the page, each in the file that its first line names."""
    blocks = re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == PAGE.read_text("utf-8").count("```python\n")
    return project(tmp_path / "examples", **dict(blocks))


# --- In this very run ---------------------------------------------------------------------------------------


def test_it_is_registered() -> None:
    """Installing the package is enough for pytest to find the plugin."""
    (found,) = entry_points(group="pytest11", name="grym_fetch")
    assert found.value == "grym_fetch.testing.plugin"


@pytest.mark.assets({"a": "/mock/a", "b": "/mock/b"})
@pytest.mark.assets({"a": "/nearer/a"}, sizes={"a": 7})
async def test_the_mock(mock_asset_manager: MockAssetManager) -> None:
    """Markers add up, and the nearest wins."""
    assert await mock_asset_manager.get_asset_path("a") == Path("/nearer/a")
    assert await mock_asset_manager.get_asset_path("b") == Path("/mock/b")
    assert mock_asset_manager.manifest.get("a").size == 7


def test_the_server(asset_server: AssetServer) -> None:
    """The server runs, and the test needs no asyncio."""
    file = asset_server.add("/a.bin", SeededContent(1000, seed=1))
    assert file.url.startswith(f"http://127.0.0.1:{asset_server.port}/")


# --- In runs of their own -----------------------------------------------------------------------------------


@pytest.mark.posix
@pytest.mark.parametrize("options", typical([[], ["--minimal-assets"]], ["--minimal-assets"]), ids=["full", "minimal"])
def test_the_examples_of_the_page(examples: Path, options: list[str]) -> None:
    """Every example passes as printed, with full assets and with stand-ins."""
    counts, said = run_pytest(examples, *options)
    tests = sum(path.read_text("utf-8").count("def test_") for path in examples.glob("test_*.py"))
    assert counts == {"passed": tests}, said


def test_the_option_lasts_for_one_run(tmp_path: Path) -> None:
    """The option sets the variable before anything is imported, and restores it at the end."""
    test = """
import os
AT_IMPORT = os.environ["GRYM_FETCH_MINIMAL"]
def test_it(): assert AT_IMPORT == os.environ["GRYM_FETCH_MINIMAL"] == "1"
"""
    outer = """
import os, pytest
for before in (None, "0"):
    if before is not None:
        os.environ["GRYM_FETCH_MINIMAL"] = before
    assert pytest.main(["--minimal-assets", "-q", "test_it.py"]) == 0
    assert os.environ.get("GRYM_FETCH_MINIMAL") == before
"""
    folder = project(tmp_path / "project", test_it=test, outer=outer)
    done = subprocess.run([sys.executable, "outer.py"], cwd=folder, env=environment(), capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.sweep
def test_without_the_option_nothing_is_set(tmp_path: Path) -> None:
    """Without the option a run leaves the environment alone, and a variable set there counts."""
    test = "import os\ndef test_it(): assert os.environ.get('GRYM_FETCH_MINIMAL') == os.environ.get('EXPECTED')\n"
    folder = project(tmp_path / "project", test_it=test)
    assert run_pytest(folder)[0] == {"passed": 1}
    assert run_pytest(folder, GRYM_FETCH_MINIMAL="yes", EXPECTED="yes")[0] == {"passed": 1}


@pytest.mark.sweep
def test_it_needs_no_other_plugin(tmp_path: Path) -> None:
    """The fixtures work without pytest-asyncio and the plugin of anyio."""
    test = """
import asyncio
from pathlib import Path

def test_mock(mock_asset_manager):
    mock_asset_manager.paths["a"] = "/a"
    assert asyncio.run(mock_asset_manager.get_asset_path("a")) == Path("/a")

def test_server(asset_server):
    assert asset_server.port
"""
    folder = project(tmp_path / "project", test_it=test)
    counts, said = run_pytest(folder, "-p", "no:asyncio", "-p", "no:anyio", "-p", "no:timeout")
    assert counts == {"passed": 2}, said


@pytest.mark.posix
def test_the_start_of_pytest_stays_quick(tmp_path: Path) -> None:
    """In a project whose tests do not use the plugin, it imports nothing big."""
    test = """
import sys
def test_it():
    ours = {name for name in sys.modules if name.partition(".")[0] == "grym_fetch"}
    assert ours <= {"grym_fetch", "grym_fetch._version", "grym_fetch.core", "grym_fetch.core.errors",
                    "grym_fetch.core.nearest", "grym_fetch.core.text",
                    "grym_fetch.testing", "grym_fetch.testing.plugin"}
    assert not {"aiohttp", "anyio"} & set(sys.modules)
"""
    folder = project(tmp_path / "project", test_it=test)
    counts, said = run_pytest(folder, "-p", "no:asyncio", "-p", "no:anyio")
    assert counts == {"passed": 1}, said


@pytest.mark.sweep
def test_it_is_found_in_the_help(tmp_path: Path) -> None:
    """Option, marker and fixtures explain themselves."""
    folder = project(tmp_path / "project", test_it="def test_it(): pass\n")
    assert "--minimal-assets" in run_pytest(folder, "--help")[1]
    assert "@pytest.mark.assets(paths" in run_pytest(folder, "--markers")[1]
    fixtures = run_pytest(folder, "--fixtures")[1]
    assert "mock_asset_manager" in fixtures
    assert "asset_server" in fixtures
