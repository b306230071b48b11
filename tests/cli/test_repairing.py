"""``repair``: one line for each file, or one object."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.core.piece_digests import MIB
from grym_fetch.testing import AssetServer, seeded_bytes
from tests.cli.running import invoke
from tests.support.archives import zip_of
from tests.support.project import Project
from tests.transfer.test_repair import pieces_of

CONTENT = seeded_bytes(2 * MIB, seed=94)


@pytest.fixture
def project(tmp_path: Path, server: AssetServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A damaged asset, an intact one, and one that is not there."""
    made = Project(tmp_path)
    url = server.add("/a.bin", CONTENT).url
    for name, there in (("damaged", CONTENT[:-1] + b"?"), ("intact", CONTENT), ("missing", None)):
        file = made.add(name, [url], CONTENT, pieces=pieces_of(CONTENT))
        file.parent.mkdir(parents=True, exist_ok=True)
        if there is not None:
            file.write_bytes(there)
    monkeypatch.chdir(tmp_path)
    return made


def test_the_cost_first(project: Project, server: AssetServer) -> None:
    """A dry run reports it and fetches nothing; then each file that exists has its line."""
    dry = invoke("repair", "-n")
    assert dry.exit_code == 0
    assert dry.stdout.splitlines() == [
        "damaged  damaged  1 of 2 pieces bad  a repair would fetch 1.0 MiB",
        "intact  intact",
    ]
    assert not server.stats.requests
    done = invoke("repair", "-q", "damaged")
    assert (done.exit_code, done.stdout) == (0, "")
    assert project.finals()["damaged"].read_bytes() == CONTENT
    assert invoke("repair").stdout.splitlines() == ["intact  damaged", "intact  intact"]


def test_objects(project: Project) -> None:
    """With ``--json`` there is an object for what was found and done, beside the events."""
    lines = [json.loads(line) for line in invoke("repair", "damaged", "--json").stdout.splitlines()]
    assert next(line["type"] for line in lines if line.get("type", "").startswith("asset_")) == "asset_verifying"
    assert [line["bad"] for line in lines if line.get("type") == "asset_damaged"] == [1]
    (done,) = (line for line in lines if "outcome" in line)
    assert {**done, "downloaded_bytes": MIB} == {
        "id": "damaged", "path": str(project.finals()["damaged"]), "outcome": "repaired", "pieces": 2, "bad": 1,
        "bytes_to_fetch": MIB, "fetched": 1, "downloaded_bytes": MIB, "saved_bytes": MIB, "is_guess": False,
        "bytes_at_most": None,
    }  # fmt: skip


def test_what_cannot_be_repaired(project: Project, server: AssetServer) -> None:
    """A named asset that is missing is an error, and the others are repaired; if nothing needs repair, that is said."""
    done = invoke("repair", "missing", "damaged")
    assert done.exit_code == 1
    assert "no file is there to be repaired" in done.stderr
    assert project.finals()["damaged"].read_bytes() == CONTENT
    for path in project.finals().values():
        path.unlink(missing_ok=True)
    none = invoke("repair")
    assert (none.exit_code, none.stdout) == (0, "")
    assert "nothing to repair" in none.stderr


def test_without_a_name_all_that_is_there(project: Project, server: AssetServer) -> None:
    """Also an archive that is not unpacked, and a stand-in."""
    packed, tiny = zip_of({"x": b"1"}), b"tiny"
    server.add("/tiny", tiny)
    minimal = {"url": server.url("/tiny"), "checksum": str(Checksum.of(tiny)), "size": len(tiny)}
    project.entries.clear()
    project.add("packed", [server.add("/a.zip", packed).url], packed, extract=True, localPath="packed.zip")
    project.add("model", [server.url("/a.bin")], CONTENT, minimal=minimal)
    assert invoke("sync", "--minimal").exit_code == 0
    unpacked = project.assets / "packed/x"
    unpacked.unlink()
    assert invoke("repair").stdout.splitlines() == ["intact  packed"]
    assert unpacked.read_bytes() == b"1"
    place = project.assets / "minimal/models/model.bin"
    place.chmod(0o644)
    place.write_bytes(b"tin?")
    outcomes = [line.split()[:2] for line in invoke("repair", GRYM_FETCH_MINIMAL="1").stdout.splitlines()]
    assert outcomes == [["intact", "packed"], ["replaced", "model"]]
    assert place.read_bytes() == tiny
