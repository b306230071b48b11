"""Settings in files, as commands follow and show them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from grym_fetch.cli import streams
from grym_fetch.core.cells import cells
from grym_fetch.core.configuration import KEYS
from grym_fetch.display.sheet import Sheet
from tests.cli.running import invoke
from tests.display.scripted import FakeTerminal
from tests.support.project import Project

CONTENT = b"content"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """One asset, which is present; settings are in a home folder of the test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    made = Project(tmp_path / "project")
    file = made.add("a", ["http://127.0.0.1:1/a"], CONTENT)
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    monkeypatch.chdir(made.root)
    return made


def project_says(project: Project, text: str) -> Path:
    path = project.root / "pyproject.toml"
    path.write_text(f"[tool.grym-fetch]\n{text}\n")
    return path


def user_says(project: Project, text: str) -> Path:
    path = project.root.parent / "home/grym-fetch/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def rows(done: Result) -> dict[str, tuple[object, str, str | None]]:
    """The output of `config --json`, by name."""
    assert done.exit_code == 0, done.output
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return {each["name"]: (each["value"], each["source"], each["where"]) for each in records}


def test_a_narrow_terminal_breaks_between_words(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the columns fit they are aligned; elsewhere each row is broken by itself, and has all of its words."""
    project_says(project, 'assets-dir = "big"')
    wide, narrow = (Sheet(FakeTerminal(), {"NO_COLOR": "1"}, width=width) for width in (400, 40))
    monkeypatch.setattr(streams, "sheet", lambda *_: wide)
    aligned = invoke("config").stdout.splitlines()
    assert len(aligned) == len(KEYS) + 1
    assert len({line.rindex("  default") for line in aligned if line.endswith("  default")}) == 1
    monkeypatch.setattr(streams, "sheet", lambda *_: narrow)
    broken = invoke("config").stdout
    assert broken.split() == " ".join(aligned).split()
    assert all(cells(line) <= 40 or len(line.split()) == 1 for line in broken.splitlines())


def test_each_setting_is_shown_with_its_source(project: Project) -> None:
    """Every setting is shown with its strongest source."""
    mine = user_says(project, 'parallel = 2\nretries = 1\nlimit-rate = "1M"\nminimal = true')
    forbidding = "no-pipelining = true\nno-private-addresses = true"
    theirs = project_says(project, f'parallel = 3\nassets-dir = "big"\n{forbidding}')
    shown = rows(invoke("config", "--json", GRYM_FETCH_RETRIES="9", GRYM_FETCH_MINIMAL="no"))
    assert list(shown) == ["config", *(key.name for key in KEYS)]
    assert shown["config"] == (str(project.manifest), "found", None)
    assert shown["parallel"] == (3, "project", str(theirs))
    assert shown["no-pipelining"] == (True, "project", str(theirs))
    assert shown["no-private-addresses"] == (True, "project", str(theirs))
    assert shown["assets-dir"] == (str(project.root / "big"), "project", str(theirs))
    assert shown["retries"] == (9, "environment", "GRYM_FETCH_RETRIES")
    assert shown["minimal"] == (False, "environment", "GRYM_FETCH_MINIMAL")
    assert shown["limit-rate"] == (1024**2, "user", str(mine))
    assert shown["patience"] == (120, "default", None)
    named = rows(invoke("config", "--json", "--assets-dir", "x", "--config", "assets.json"))
    assert named["assets-dir"] == (str(project.root / "x"), "option", "--assets-dir")
    assert named["config"] == (str(project.manifest), "option", "--config")
    [line] = [each for each in invoke("config").stdout.splitlines() if each.startswith("parallel")]
    assert line.split() == ["parallel", "3", "project", f"({theirs})"]


def test_settings_can_be_shown_without_a_manifest(project: Project) -> None:
    """A user who sets up a machine has no project yet."""
    user_says(project, "parallel = 2")
    project.manifest.unlink()
    shown = rows(invoke("config", "--json"))
    assert (shown["config"][0], shown["parallel"][0]) == (None, 2)
    assert invoke("config", "--config", "none.json").exit_code == 2


@pytest.mark.shows("S23")
@pytest.mark.parametrize(
    "command",
    [
        "sync", "check", "list", "path a", "doctor", "setup", "pin", "prune", "config", "restore --all", "clean -n",
        "add a.bin --url https://h.example/a", "import SHA256SUMS --base-url https://h.example", "outdated", "info a",
    ],
)  # fmt: skip
def test_a_file_with_a_mistake_is_wrong_usage(project: Project, command: str) -> None:
    """Every command ends with exit code 2, naming the file, the key and a near match, and does nothing."""
    for name in ("a.bin", "SHA256SUMS"):
        (project.root / name).write_text(f"{'0' * 64}  a\n")
    of_user, of_project = user_says(project, "paralel = 3"), project_says(project, "ofline = true")
    for path, name in ((of_project, "offline"), (of_user, "parallel")):
        done = invoke(*command.split())
        assert done.exit_code == 2, done.output
        assert f"{path}: " in done.output
        assert f"did you mean {name}?" in done.output
        path.unlink()


@pytest.mark.shows("S23")
def test_a_project_cannot_allow_what_is_unpinned(project: Project) -> None:
    """Its file is refused, and so is the asset without a checksum; the user's own file can allow it."""
    project.entries[0].pop("checksum")
    project.write()
    allowing = project_says(project, "allow-unpinned = true")
    done = invoke("sync")
    assert (done.exit_code, "allow-unpinned: cannot be set by a project" in done.stderr) == (2, True)
    allowing.unlink()
    assert invoke("sync").exit_code == 1
    user_says(project, "allow-unpinned = true")
    assert invoke("sync").exit_code == 0


def test_what_a_file_says_holds_for_a_command(project: Project) -> None:
    """A setting in a file acts like the option, and the option wins."""
    project.finals()["a"].unlink()
    project_says(project, "offline = true")
    done = invoke("sync")
    assert (done.exit_code, "offline" in done.stderr) == (1, True)
    project_says(project, 'assets-dir = "big"')
    user_says(project, "minimal = true")
    plan = json.loads(invoke("sync", "-n", "--json").stdout)
    assert plan["fetch"][0]["path"] == str(project.root / "big/models/a.bin")


def test_a_relative_folder_in_the_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is relative to the project, so it means the same in every subfolder; an option's is relative to the shell."""
    (project.root / "src").mkdir()
    for folder in (project.root, project.root / "src"):
        monkeypatch.chdir(folder)
        shown = rows(invoke("config", "--json", GRYM_FETCH_ASSETS_DIR="assets"))
        assert shown["assets-dir"] == (str(project.assets), "environment", "GRYM_FETCH_ASSETS_DIR")
        done = invoke("path", "a", "--offline", GRYM_FETCH_ASSETS_DIR="assets", GRYM_FETCH_EXTERNAL_ASSETS_DIR="../x")
        assert done.stdout.strip() == str(project.finals()["a"])
    assert invoke("path", "a", "--offline", "--assets-dir", "../assets").stdout.strip()


@pytest.mark.posix
@pytest.mark.parametrize(
    "command",
    ["setup", "add ../w.bin --url https://h.example/w.bin", "import ../SHA256SUMS --base-url https://h.example"],
)
@pytest.mark.parametrize("is_link", [False, True])
def test_nothing_is_made_of_a_project_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, is_link: bool
) -> None:
    """A mistake in the user's file, or an assets folder that leads elsewhere: no manifest is left behind."""
    made = Project(tmp_path / "new")
    made.root.mkdir()
    (tmp_path / "w.bin").write_bytes(CONTENT)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  w.bin\n")
    monkeypatch.chdir(made.root)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    if is_link:
        (made.root / "assets").symlink_to(tmp_path)
    else:
        user_says(made, "paralel = 1\nretry = 2")
    done = invoke(*command.split())
    assert done.exit_code == (4 if is_link else 2), done.output
    told = ["the assets folder is a symlink"] if is_link else ["did you mean parallel?", "retry: is not a setting"]
    assert all(each in done.stderr for each in told)
    assert [path.name for path in made.root.iterdir()] == ["assets"] * is_link


def test_clean_does_nothing_with_settings_that_cannot_be_used(project: Project) -> None:
    """They may name the assets folder, from which nothing is moved; also where the target is named."""
    large = project.root / "big/large.bin"
    large.parent.mkdir()
    large.write_bytes(b"x" * 3000)
    command = ("clean", "--size", "2KB", ".", "../moved", "--yes")
    project_says(project, 'assets-dir = "big"\nparalel = 1')
    refused = invoke(*command)
    assert (refused.exit_code, "did you mean parallel?" in refused.stderr) == (2, True)
    project_says(project, 'assets-dir = "big"')
    kept = invoke(*command)
    assert (kept.exit_code, "an assets folder of grym-fetch" in kept.output) == (0, True)
    assert large.exists()


def test_a_blank_variable_is_not_set(project: Project) -> None:
    """It overrides no file that forbids something."""
    project.finals()["a"].unlink()
    user_says(project, "offline = true")
    for text in ("", " "):
        assert "offline" in invoke("sync", GRYM_FETCH_OFFLINE=text).stderr
