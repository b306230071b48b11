"""What inspecting commands say about stand-ins, tags and pins."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from grym_fetch.cli.main import cli
from grym_fetch.core.digest import Checksum
from grym_fetch.core.piece_digests import MIB
from grym_fetch.testing import AssetServer, Status, seeded_bytes
from tests.support.project import Project

CONTENT, TINY = b"the full model", b"tiny"
URL = "https://models.example.org/"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An asset with a stand-in; only the stand-in is present."""
    made = Project(tmp_path)
    minimal = {"url": f"{URL}tiny.bin", "checksum": str(Checksum.of(TINY)), "size": len(TINY)}
    made.add("model", [f"{URL}model.bin"], CONTENT, minimal=minimal, tags=["audio"])
    place = made.assets / "minimal/models/model.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(TINY)
    return made


def run(project: Project, *arguments: str, **variables: str) -> Result:
    """Call the command line in this process."""
    command = [*arguments, "--config", str(project.manifest)]
    return CliRunner().invoke(cli, command, standalone_mode=False, env=variables)


def test_info_shows_the_whole_entry(project: Project) -> None:
    """Source, archive, pieces and metadata, too, without the secrets of addresses in them."""
    metadata = {"card": ["https://u:hunter2@models.example.org/card?token=hunter2"], "rate": 16000}
    project.add(
        "full", [f"{URL}full.zip"], CONTENT, localPath="full.zip", metadata=metadata,
        description="speaks", version="3", extract=True, source="hf://o/r/model.zip",
        pieces={"size": 16384, "sha256": ["a" * 64]},
    )  # fmt: skip
    told = run(project, "info", "full").stdout
    for shown in ("speaks", "3", "hf://o/r/model.zip", "is unpacked beside it", "1 of 16.0 KiB", '"rate": 16000'):
        assert shown in told
    record = json.loads(run(project, "info", "full", "--json").stdout)
    assert record["metadata"] == {"card": ["https://models.example.org/card"], "rate": 16000}
    assert (record["description"], record["version"], record["extract"]) == ("speaks", "3", True)
    assert (record["source"], record["piece_size"]) == ("hf://o/r/model.zip", 16384)
    assert "hunter2" not in told


@pytest.mark.sweep
def test_what_the_state_says_is_said_once(tmp_path: Path, server: AssetServer) -> None:
    """A partial file has its share, as in a list, and no problem beside it."""
    made = Project(tmp_path)
    content = seeded_bytes(2 * MIB, seed=12)
    faults = [Status(401, covering=MIB)]
    made.add("half", [server.add("/half", content, faults=faults).url], content)
    done = run(made, "sync", "--retries", "0")
    assert done.return_value == 1, done.output
    told = run(made, "info", "half").stdout
    assert re.search(r"^state +partial \d+%$", told, re.MULTILINE)
    assert "problem" not in told
    assert json.loads(run(made, "info", "half", "--json").stdout)["error"] == "only partly downloaded"


@pytest.mark.parametrize("word", ["1", "y", "T", "true", "on"])
def test_info_speaks_of_one_file(project: Project, word: str) -> None:
    """With stand-ins on, path, state, size and checksum are all the stand-in's, and the output says so."""
    record = json.loads(run(project, "info", "model", "--json", GRYM_FETCH_MINIMAL=word).stdout)
    assert (record["state"], record["stand_in"], record["size"]) == ("verified", True, len(TINY))
    assert record["checksum"] == str(Checksum.of(TINY))
    assert record["path"] == str(project.assets / "minimal" / "models/model.bin")
    assert record["urls"] == [f"{URL}tiny.bin"]
    assert "(of the stand-in)" in run(project, "info", "model", GRYM_FETCH_MINIMAL=word).stdout
    record = json.loads(run(project, "info", "model", "--json").stdout)
    assert (record["state"], record["stand_in"], record["size"]) == ("missing", False, len(CONTENT))
    record = json.loads(run(project, "list", "--json", GRYM_FETCH_MINIMAL=word).stdout)
    assert (record["state"], record["size"]) == ("present", len(TINY)) or record["state"] == "verified"


@pytest.mark.parametrize("command", [["list"], ["info", "model"], ["sync", "--offline"], ["check"]])
def test_a_word_that_is_neither_yes_nor_no_is_refused_everywhere(project: Project, command: list[str]) -> None:
    """A typo must not choose for the user, whichever command reads it."""
    done = run(project, *command, GRYM_FETCH_MINIMAL="maybe")
    assert type(done.exception).__name__ in ("UsageError", "BadParameter"), done.output
    assert "neither yes nor no" in str(done.exception)


@pytest.mark.parametrize("word", ["true", "2", "0", "no"])
def test_verbose_in_the_environment(project: Project, word: str) -> None:
    """A number is accepted, and so is yes or no."""
    assert run(project, "list", GRYM_FETCH_VERBOSE=word).return_value == 0


def test_a_tag_that_nobody_has(project: Project) -> None:
    """A typo is not an empty success: exit code 2, with the existing tags."""
    for command in ("sync", "list"):
        done = run(project, command, "--tag", "typo")
        assert done.return_value == 2
        assert "no asset has the tag 'typo'\nhint: Tags in the manifest: audio." in done.stderr


def test_nothing_to_pin(project: Project) -> None:
    """If only named assets were asked for, nothing is said about the others."""
    project.add("unpinned", [f"{URL}u.bin"], None, size=None)
    done = run(project, "pin", "model")
    assert done.return_value == 0
    assert "the assets named have theirs" in done.stderr


def test_a_check_writes_its_records_and_no_events(project: Project) -> None:
    """Even when it reads files, which the display shows: scripts get one object for each asset."""
    place = project.assets / "models/model.bin"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(CONTENT)
    for arguments in (["check", "--full", "--json"], ["info", "model", "--json"]):
        (line,) = run(project, *arguments).stdout.splitlines()
        assert json.loads(line)["state"] == "verified"


@pytest.mark.parametrize("command", ["list", "check"])
def test_an_empty_manifest_is_told(project: Project, command: str) -> None:
    """Silence would say that something is wrong."""
    project.entries.clear()
    project.write()
    done = run(project, command)
    assert (done.stdout, done.stderr) == ("", "the manifest lists no assets; `grym-fetch add URL` adds one\n")
    assert run(project, command, "-q").stderr == ""


def test_an_unknown_id_is_told_alike_everywhere(project: Project) -> None:
    """What is wrong, and the nearest one as a hint."""
    for command in ("check", "doctor", "repair"):
        said = "error: no asset 'modle' in the manifest\nhint: Did you mean model? `grym-fetch list` shows all.\n"
        assert run(project, command, "modle").stderr == said


def test_what_to_do_next_is_what_helps(project: Project) -> None:
    """A plain sync fetches the required assets; others need --all."""
    assert run(project, "list").stderr == "1 missing: grym-fetch sync\n"
    project.add("other", [f"{URL}o.bin"], CONTENT, required=False)
    place = project.assets / "models/model.bin"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(CONTENT)
    assert run(project, "check").stderr.endswith("1 missing: grym-fetch sync --all\n")
    assert run(project, "check", "--minimal").stderr.endswith("1 missing: grym-fetch sync --all --minimal\n")


def test_what_to_do_next_is_about_what_was_asked_for(project: Project) -> None:
    """Those assets and no others, as they were chosen."""
    for name in ("voice-a", "voice-b"):
        project.add(name, [f"{URL}{name}.bin"], CONTENT, required=False, tags=["voice"])
    assert run(project, "list", "--tag", "voice").stderr == "2 missing: grym-fetch sync --tag voice\n"
    told = run(project, "check", "voice-*", "--exclude", "voice-b").stderr
    assert told == "1 missing: grym-fetch sync --exclude voice-b 'voice-*'\n"
