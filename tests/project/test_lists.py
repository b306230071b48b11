"""Lists of other tools, to and from the manifest: `import`, `export`, and a checksum from a list beside the file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from grym_fetch import ManifestError, UnknownAsset
from grym_fetch.cli.lists import READABLE, WRITABLE
from grym_fetch.cli.main import cli
from grym_fetch.core.digest import Checksum
from grym_fetch.core.manifest import Asset
from grym_fetch.errors import DigestMismatch, EditRefused, EntryUnsuited, SourceFailed, UnknownSource
from grym_fetch.sources.listings import FORMATS
from grym_fetch.testing import AssetServer, seeded_bytes, serve_in_thread
from tests.project.editing import entries
from tests.support.project import KIB, Project

CONTENT = seeded_bytes(100 * KIB, seed=5)
OTHER = seeded_bytes(90 * KIB, seed=6)


def md5(content: bytes) -> str:
    """The content's MD5."""
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project without assets."""
    made = Project(tmp_path / "project")
    made.write()
    return made


async def test_import_what_is_known(project: Project, server: AssetServer, tmp_path: Path) -> None:
    """A file with a SHA-256 is listed and not fetched; its address is in the list or follows from a base."""
    server.add("/base/d/b.bin", OTHER)
    listing = tmp_path / "SHA256SUMS"
    listing.write_text(f"{Checksum.of(OTHER).hexdigest}  d/b.bin\n")
    async with project.manager() as manager:
        [asset] = await manager.import_list(listing, base_url=server.url("/base/"), prefix="p", folder="f", tags=["t"])
        assert (asset.id, asset.local_path, asset.tags) == ("p-d-b.bin", "f/d/b.bin", ("t",))
        assert not server.stats.requests
        assert (await manager.get_asset_path(asset.id)).read_bytes() == OTHER


@pytest.mark.shows("C14")
async def test_import_what_must_be_fetched(project: Project, server: AssetServer, tmp_path: Path) -> None:
    """A file with an MD5 is compared with it; if one differs, nothing of the list is added."""
    url = server.add("/a.bin", CONTENT).url
    listing = tmp_path / "registry.txt"
    listing.write_text(f"a.bin md5:{md5(CONTENT)} {url}\nb.bin md5:{md5(OTHER)} {server.add('/b.bin', CONTENT).url}\n")
    before = project.manifest.read_bytes()
    async with project.manager() as manager:
        with pytest.raises(Exception, match="checksum mismatch"):
            await manager.import_list(listing)
        assert project.manifest.read_bytes() == before
        server.add("/b.bin", OTHER)
        await manager.import_list(listing)
    assert entries(project)["a.bin"]["checksum"] == Checksum.of(CONTENT).hexdigest
    assert entries(project)["b.bin"]["checksum"] == Checksum.of(OTHER).hexdigest


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("SHA256SUMS", f"{'0' * 64}  a.bin\n", "no http or https address; name .* --base-url"),
        ("SHA256SUMS", f"{'0' * 64}  ../a.bin\n", "'../a.bin'"),
        ("list", 'url = "https://h.example/a"\noutput = "/etc/a"\n', "'/etc/a' is absolute"),
        ("list", "ftp://h.example/a\n", "no http or https address"),
        ("list", "what is this\n", "its format is not known; name it with --format"),
        ("a.meta4", "<!DOCTYPE a><a/>", "document type"),
    ],
)
async def test_what_cannot_be_imported(project: Project, tmp_path: Path, name: str, text: str, reason: str) -> None:
    """The reason is given, and nothing is added."""
    (tmp_path / name).write_text(text)
    before = project.manifest.read_bytes()
    async with project.manager() as manager:
        with pytest.raises(ManifestError, match=reason):
            await manager.import_list(tmp_path / name)
        with pytest.raises(ValueError, match="format must be one of"):
            await manager.import_list(tmp_path / name, format="zip")
    assert project.manifest.read_bytes() == before


@pytest.mark.parametrize("name", WRITABLE)
async def test_out_and_in_again(project: Project, server: AssetServer, tmp_path: Path, name: str) -> None:
    """Exported assets are imported as the same assets, as far as the format goes."""
    url, mirror = server.add("/a.bin", CONTENT).url, server.add("/mirror/models/a.bin", CONTENT).url
    project.add("a", [url, mirror], CONTENT)
    async with project.manager() as manager:
        text = manager.export_list(name)
        (tmp_path / "list").write_text(text)
        await manager.remove_asset("a")
        [asset] = await manager.import_list(tmp_path / "list", base_url=server.url("/mirror"))
    assert (asset.local_path, asset.checksum) == ("models/a.bin", Checksum.of(CONTENT))
    assert asset.url == (mirror if name == "sha256sums" else url)
    assert asset.fallback_urls == ((mirror,) if name in ("metalink", "aria2") else ())


async def test_what_cannot_be_exported(project: Project) -> None:
    """An unknown asset or format is refused, and so is an asset that the format cannot express."""
    project.add("u", ["https://h.example/u"], None, pinned=False, size=None)
    project.add("bucket", ["s3://bucket/b"], CONTENT)
    async with project.manager() as manager:
        with pytest.raises(EntryUnsuited, match=r"assets\.json: export as sha256sums: u: has no SHA-256"):
            manager.export_list("sha256sums")
        for name in ("metalink", "aria2", "curl", "pooch"):
            with pytest.raises(EditRefused, match="bucket: has no http or https address"):
                manager.export_list(name, ["bucket"])
        with pytest.raises(UnknownAsset):
            manager.export_list("pooch", ["nothing"])
        with pytest.raises(ValueError, match="not 'dvc'"):
            manager.export_list("dvc")


@pytest.mark.shows("C14")
@pytest.mark.parametrize("kind", ["sha256", "md5"])
async def test_checksums_from_a_list(project: Project, server: AssetServer, tmp_path: Path, kind: str) -> None:
    """The file must match the list beside it, whether it is fetched or already here."""
    file = server.add("/d/a b.bin", CONTENT)
    good, bad = (hashlib.new(kind, content).hexdigest() for content in (CONTENT, OTHER))
    lists = [
        server.add(f"/d/{name}", f"{digest}  a b.bin\n".encode()).url for name, digest in (("G", good), ("B", bad))
    ]
    own = tmp_path / "own.bin"
    own.write_bytes(CONTENT)
    async with project.manager() as manager:
        for given in (None, own):
            with pytest.raises(DigestMismatch):
                await manager.add_asset(
                    Asset("a", file.url, "a.bin"), fetch=given is None, file=given, checksums_from=lists[1]
                )
            assert not (project.assets / "a.bin").exists()
            added = await manager.add_asset(
                Asset("a", file.url, "a.bin"), fetch=given is None, file=given, checksums_from=lists[0]
            )
            assert added.checksum == Checksum.of(CONTENT)
            await manager.remove_asset("a", delete_file=True)


@pytest.mark.shows("C15")
async def test_a_list_that_does_not_help(project: Project, server: AssetServer) -> None:
    """The list is missing, is not a list, or lacks the file; or the checksum contradicts it."""
    url = server.add("/a.bin", CONTENT).url
    page = server.add("/page", b"<html>").url
    other = server.add("/other", f"{'0' * 64}  a.bim\n".encode()).url
    wrong = server.add("/wrong", f"{'0' * 64}  a.bin\n".encode()).url
    text = server.add("/text", b"what is this\n").url
    asset = Asset("a", url, "a.bin", checksum=Checksum.of(CONTENT))
    async with project.manager(retries=0) as manager:
        for where, error, reason in (
            (server.url("/nothing"), SourceFailed, None),
            (page, SourceFailed, None),
            (text, SourceFailed, r"its format is not known \("),  # and `add` has no --format that could name it
            (other, UnknownSource, None),
            (wrong, EditRefused, None),
        ):
            with pytest.raises(error, match=reason):
                await manager.add_asset(asset, fetch=True, checksums_from=where)
    assert "/a.bin" not in [request.path for request in server.stats.requests]


# -- the commands ---------------------------------------------------------------------------------------------------


def run(project: Project, *arguments: str) -> tuple[int, Result]:
    """Run a command in this process; its exit code and output."""
    environ = {"GRYM_FETCH_CONFIG": str(project.manifest)}
    done = CliRunner().invoke(cli, arguments, env=environ, standalone_mode=False)
    if isinstance(done.exception, click.ClickException):
        return done.exception.exit_code, done
    return done.return_value, done


def test_the_formats_are_those_of_the_library() -> None:
    """The choices of the options are the formats that can be read and written."""
    assert set(READABLE) == set(FORMATS)
    assert set(WRITABLE) == {name for name, each in FORMATS.items() if each.write is not None}


def test_the_commands(project: Project, tmp_path: Path) -> None:
    """In, out, and with --json; wrong usage and an invalid list have different exit codes."""
    with serve_in_thread() as server:
        url = server.add("/a.bin", CONTENT).url
        listing = tmp_path / "in.txt"
        listing.write_text(f"a.bin {Checksum.of(CONTENT).hexdigest} {url}\n")
        code, done = run(project, "import", str(listing), "--tag", "t", "--json")
        assert code == 0, done.output
        assert json.loads(done.stdout.splitlines()[-1])["id"] == "a.bin"
        listing.write_text(f"c.bin {Checksum.of(CONTENT).hexdigest} {url}\n")
        code, done = run(project, "import", str(listing))
        assert done.stdout.split()[:3] == ["added", "c.bin", "?"]  # no size is known yet
        assert run(project, "remove", "c.bin")[0] == 0
        listing.write_text(f"a.bin {Checksum.of(CONTENT).hexdigest} {url}\n")
        code, done = run(project, "export", "--format", "sha256sums")
        assert (code, done.stdout) == (0, f"{Checksum.of(CONTENT).hexdigest}  a.bin\n")
        assert json.loads(run(project, "export", "a.bin", "--format", "curl", "--json")[1].stdout)["format"] == "curl"
        sums = server.add("/SUMS", f"{Checksum.of(OTHER).hexdigest}  a.bin\n".encode()).url
        arguments = ["add", url, "--id", "b", "--local-path", "b.bin", "--checksums-from", sums]
        assert run(project, *arguments)[0] == 3
        server.add("/SUMS", f"{Checksum.of(CONTENT).hexdigest}  a.bin\n".encode())
        assert run(project, *arguments)[0] == 0
    assert entries(project)["b"]["checksum"] == Checksum.of(CONTENT).hexdigest
    assert run(project, "import", str(listing))[0] == 2  # its id is taken
    assert run(project, "import", str(tmp_path / "nothing"))[0] == 2
    assert run(project, "export", "nothing", "--format", "curl")[0] == 2
