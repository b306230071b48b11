"""What a project or an earlier clean needs stays where it is, wherever a clean begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from grym_fetch.core.errors import AssetMissing, RepositoryError
from grym_fetch.repo.clean import Moved, Why, plan_clean
from grym_fetch.repo.own_folders import OwnFolders
from grym_fetch.repo.restore import Restorer
from grym_fetch.testing import seeded_bytes
from tests.repo.story import LIMIT, clean, write

A, B = seeded_bytes(5000, seed=1), seeded_bytes(3000, seed=2)
MANIFEST = b'{"version": "1.0", "assets": []}'


def planned(root: Path, source: Path, *needed: Path) -> tuple[list[str], list[str]]:
    """Which files would be moved, and which are kept because they are needed."""
    plan = plan_clean(root, source, root.parent / "out", LIMIT, needed=needed)
    assert {kept.why for kept in plan.kept} <= {Why.NEEDED}
    return [move.path for move in plan.moves], [kept.path for kept in plan.kept]


@pytest.mark.shows("S21")
@pytest.mark.parametrize("mark", ["assets.json", "config/assets.json", "assets/.grym-fetch/x", "cut off"])
@pytest.mark.parametrize("start", ["above", "project", "assets", "deep in it"])
def test_assets_of_a_project_stay(tmp_path: Path, mark: str, start: str) -> None:
    """Assets are recognised by a manifest or a state folder, even right after `setup`, from above and from within."""
    top = tmp_path / "top"
    project = top / "project"
    write(project, "assets.json" if mark == "cut off" else mark, MANIFEST[:-3] if mark == "cut off" else MANIFEST)
    write(project, "assets/sub/a.bin", A)
    write(project, "data/b.bin", B)
    source = {"above": top, "project": project, "assets": project / "assets"}.get(start, project / "assets/sub")
    moves, kept = planned(source, source)
    below = (project / "assets/sub/a.bin").relative_to(source).as_posix()
    assert kept == [below]
    assert moves == (
        [] if "assets" in source.name or source.name == "sub" else [below.replace("assets/sub/a", "data/b")]
    )


def test_what_other_programs_call_so_is_theirs(tmp_path: Path) -> None:
    """A file of such a name that lists no assets and has no settings of ours protects nothing, not even itself."""
    root = tmp_path / "root"
    write(root, "web/assets.json", b'{"assets": {"main.js": "x"}}')
    write(root, "web/assets/a.bin", A)
    write(root, "build/asset-manifest.json", b'{"files": {}}')
    write(root, "build/b.bin", B)
    write(root, "assets.json/odd", b"")
    write(root, "assets/c.bin", B)
    files = ["deep/assets.jsonl", "deep/assets.parquet", "deep/config/assets.json", "deep/pyproject.toml"]
    for name in files:
        write(root, name, b'{"files": []}' + b" " * 2000)
    moved = ["assets/c.bin", "build/b.bin", *files, "web/assets/a.bin"]
    assert sorted(planned(root, root)[0]) == moved


def test_a_folder_that_was_named(tmp_path: Path) -> None:
    """The folder that the user names as the assets folder is one, even if we never put anything there."""
    root = tmp_path / "root"
    write(root, "store/a.bin", A)
    assert planned(root, root, root / "store") == ([], ["store/a.bin"])


@pytest.mark.shows("S21")
def test_what_an_earlier_clean_has_moved_stays(tmp_path: Path) -> None:
    """Files listed in a record are not moved on, as nobody would bring them back from there; other files are."""
    root = tmp_path / "top/code/project"
    write(root, "a.bin", A)
    clean(root, root.parent / "assets")
    write(root.parent, "assets/other.bin", B)
    assert planned(tmp_path / "top", tmp_path / "top") == (["code/assets/other.bin"], ["code/assets/a.bin"])
    (root.parent / "assets/asset-manifest.json").write_bytes(b'{"assets": [')
    assert sorted(planned(tmp_path / "top", tmp_path / "top")[1]) == ["code/assets/a.bin", "code/assets/other.bin"]


@pytest.mark.shows("S17")
@pytest.mark.parametrize("name", [".gitattributes", ".gitignore", ".gitmodules", ".mailmap", "deep/.GitAttributes"])
def test_what_git_reads_stays(tmp_path: Path, name: str) -> None:
    """Elsewhere, git would not find its rules, however large they are."""
    write(tmp_path / "root", name, b"#" * 5000)
    assert planned(tmp_path / "root", tmp_path / "root") == ([], [name])


ENTRY = b'{"id": "a", "url": "https://example.org/a", "localPath": "a"}'
READ_BY_US = {
    "assets.json": b'{"assets": [%b]}' % b",".join([ENTRY] * 50),
    "deep/config/assets.json": b'{"assets": [' + b" " * 2000,
    "assets.jsonl": b'{"version": "1.0"}\n' + ENTRY + b" " * 2000,
    "assets.parquet": b"PAR1" + bytes(2000) + b"localPath" + b"PAR1",
    "deep/asset-manifest.json": b'{"assets": []}' + b" " * 2000,
    "pyproject.toml": b"[tool.grym-fetch]\n" + b"#" * 2000,
    "other.json": b" " * 2000,
}


@pytest.mark.shows("S21")
@pytest.mark.parametrize("name", READ_BY_US)
def test_what_grym_fetch_reads_stays(tmp_path: Path, name: str) -> None:
    """Without its manifest, its record or its settings there would be no project; a manifest may have any name."""
    file = write(tmp_path / "root", name, READ_BY_US[name])
    chosen = [file] if name == "other.json" else []
    assert planned(tmp_path / "root", tmp_path / "root", *chosen) == ([], [name])


def test_each_folder_is_looked_at_once(tmp_path: Path) -> None:
    """A thousand files in a folder cost no more looks than one."""
    own = OwnFolders()
    assert own.why_not(tmp_path / "assets/a.bin") is None
    write(tmp_path, "assets/.grym-fetch/x", b"")
    assert own.why_not(tmp_path / "assets/b.bin") is None
    assert OwnFolders().why_not(tmp_path / "assets/b.bin") is not None


# --- the way back, from another folder than the one where clean began ----------------------------------------------


@pytest.mark.shows("S21")
@pytest.mark.parametrize("has_placeholder", [True, False])
async def test_a_clean_that_began_above(tmp_path: Path, has_placeholder: bool) -> None:
    """A file moved by a clean of the parent folder is found from within, by its placeholder and by its path."""
    top, inner = tmp_path / "top", tmp_path / "top/a/inner"
    write(inner, "models/a.bin", A)
    write(top, "models/a.bin", B)
    assert len([each for each in clean(top, tmp_path / "assets") if isinstance(each, Moved)]) == 2
    if not has_placeholder:
        (inner / "models/a.bin.asset-ref").unlink()
    restorer = Restorer(inner, [inner.parent / "assets"])
    assert len(restorer.all()) == has_placeholder
    (wanted,) = restorer.find("models/a.bin", inner)
    await restorer.restore(wanted)
    assert (inner / "models/a.bin").read_bytes() == A


@pytest.mark.shows("S21")
async def test_a_clean_that_began_below(tmp_path: Path) -> None:
    """All placeholders are brought back from above, each from beside the folder where its clean began."""
    for name, content in (("one", A), ("two/deep", B)):
        write(tmp_path, f"top/{name}/models/a.bin", content)
        clean(tmp_path / "top" / name, (tmp_path / "top" / name).parent / "assets")
    restorer = Restorer(tmp_path / "top", [tmp_path / "assets"])
    for wanted in restorer.all():
        await restorer.restore(wanted)
    assert (tmp_path / "top/one/models/a.bin").read_bytes() == A
    assert (tmp_path / "top/two/deep/models/a.bin").read_bytes() == B


async def test_a_folder_that_was_named_is_the_only_one(tmp_path: Path) -> None:
    """If the user names the external folder, no other one is used."""
    write(tmp_path, "top/inner/a.bin", A)
    clean(tmp_path / "top", tmp_path / "assets")
    restorer = Restorer(tmp_path / "top/inner", [tmp_path / "empty"], only_there=True)
    (wanted,) = restorer.all()
    assert wanted.folders == ()
    (tmp_path / "top/inner/a.bin.asset-ref").unlink()
    with pytest.raises(RepositoryError, match="was not moved out"):
        restorer.find("a.bin", tmp_path / "top/inner")


@pytest.mark.shows("S19")
async def test_a_symlink_is_not_searched_unnamed(tmp_path: Path) -> None:
    """A folder that a placeholder leads to, beside another one, counts only if it could be used there."""
    write(tmp_path, "top/inner/a.bin", A)
    clean(tmp_path / "top", tmp_path / "real")
    (tmp_path / "assets").symlink_to(tmp_path / "real")
    restorer = Restorer(tmp_path / "top/inner", [tmp_path / "top/assets"])
    with pytest.raises(AssetMissing):
        await restorer.restore(restorer.all()[0])
