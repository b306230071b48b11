"""A list longer than JSON bears: each command that looks reads all of it, a part at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from grym_fetch import AssetManager
from grym_fetch.manifest_files.long_manifest import MAX_HELD
from tests.end_to_end.command import Done, run
from tests.support.project import asset_entry

COUNT = MAX_HELD + 2000
THERE, WRONG = COUNT - 1, COUNT - 2
"""The last asset is there and verified, the one before has another size; all others are missing."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a list that is not held, and two files."""
    content = b"the content of each"
    entries = [asset_entry(f"a{n}", [f"https://data.example/{n}"], content) for n in range(COUNT)]
    lines = (json.dumps(entry) for entry in [{"version": "1.0"}, *entries])
    (tmp_path / "assets.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "assets/models").mkdir(parents=True)
    for number, there in ((THERE, content), (WRONG, b"another")):
        (tmp_path / f"assets/models/a{number}.bin").write_bytes(there)
        os.utime(tmp_path / f"assets/models/a{number}.bin", (1_700_000_000, 1_700_000_000))
    return tmp_path


@pytest.mark.sweep
async def test_a_list_that_is_not_held_is_read_to_its_end(project: Path) -> None:
    """`check`, `list`, `sync -n` and `plan` name each asset once, in order, with its state."""
    names = [f"a{n}" for n in range(COUNT)]
    missing = ["missing"] * (COUNT - 2)

    checked = run(project, "check", "--json")
    assert checked.code == 3
    assert [(line["id"], line["state"]) for line in parsed(checked)] == list(
        zip(names, [*missing, "corrupt", "verified"], strict=True)
    )
    table = run(project, "check", "-q").out.splitlines()
    assert sum("missing" in line for line in table) == COUNT - 2

    listed = run(project, "list", "--json")
    assert listed.code == 0
    assert [(line["id"], line["state"]) for line in parsed(listed)] == list(
        zip(names, [*missing, "corrupt", "verified"], strict=True)
    )

    planned = run(project, "sync", "-n")
    assert planned.code == 0
    assert f"{COUNT - 1} to fetch, 1 already there" in planned.out
    assert [line.split()[1] for line in planned.out.splitlines() if line.startswith(("fetch ", "keep "))] == names
    parts = parsed(run(project, "sync", "-n", "--json"))
    assert len(parts) > 1
    assert [asset["id"] for part in parts for asset in listed_in(part, "fetch")] == names[:-1]
    assert [name for part in parts for name in listed_in(part, "present")] == names[-1:]

    async with AssetManager(project / "assets.jsonl") as manager:
        plan = await manager.plan(manager.choose())
        assert ([asset.id for asset in plan.to_fetch], [asset.id for asset in plan.present]) == (names[:-1], names[-1:])
        assert plan.bytes_to_fetch == (COUNT - 1) * len(b"the content of each")


def parsed(done: Done) -> list[dict[str, object]]:
    """What it has printed, one object a line."""
    return [json.loads(line) for line in done.out.splitlines()]


def listed_in(part: dict[str, object], key: str) -> list[Any]:
    """A list in a part of a plan."""
    found = part[key]
    assert isinstance(found, list)
    return found
