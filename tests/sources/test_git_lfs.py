"""Files in Git LFS: found in any git repository, by their pointers."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterator, Mapping

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.errors import SourceFailed, UnknownSource
from grym_fetch.net.client import HttpTransport
from grym_fetch.sources import Page, Web, git_lfs
from grym_fetch.sources.git import GitCommit, read_commit
from grym_fetch.sources.git_lfs import GitLfs, _LfsPlace, pointed_at
from grym_fetch.sources.git_pack import packet
from grym_fetch.sources.naming import Naming, as_assets
from grym_fetch.sources.registry import resolve
from tests.sources.asking import ask, web_over
from tests.support.git_lfs import GitServer, pointer_to, serving_git

WEIGHTS, OTHER = b"the weights" * 100, b"other weights" * 100
FILES = {"a/w.bin": pointer_to(WEIGHTS), "a b.bin": pointer_to(OTHER), "big.txt": b"y" * 5000, "README": b"hi"}

TOKEN = "the-token-sent"
ANSWERED = {"Content-Type": "application/x-git-upload-pack-result"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    """One server with one repository for all of these tests."""
    with serving_git(tmp_path_factory.mktemp("git")) as running:
        running.repository("org/model", FILES)
        yield running


def oid(content: bytes) -> str:
    """The name of a content."""
    return hashlib.sha256(content).hexdigest()


@pytest.mark.posix
async def test_a_repository(served: GitServer) -> None:
    """Each pointer is a file, with the digest and size that it states; what git itself has is left out."""
    found = await ask(f"git-lfs:{served.url}/org/model", {})
    host = served.url.removeprefix("http://")
    assert [file.path for file in found.files] == ["a b.bin", "a/w.bin"]
    assert found.files[1].url == f"lfs://{host}/org/model.git/info/lfs/{oid(WEIGHTS)}/{len(WEIGHTS)}"
    assert (found.files[1].checksum, found.files[1].size) == (Checksum.of(WEIGHTS), len(WEIGHTS))
    assert found.files[0].source == f"git-lfs:{served.url}/org/model@main/a%20b.bin"
    assert (found.name, found.is_whole) == ("model", True)
    again = await ask(found.files[0].source, {}, newest=True)
    assert (again.files, again.is_whole, again.revision) == (found.files[:1], False, found.revision)


@pytest.mark.posix
async def test_a_branch_moves_and_a_commit_stays(served: GitServer) -> None:
    """What a name refers to is asked each time; a commit is its own version."""
    first = served.repository("org/moving", FILES)
    source = f"git-lfs:{served.url}/org/moving.git@main/a/w.bin"
    before = await ask(source, {})
    second = served.commit("org/moving", {**FILES, "a/w.bin": pointer_to(OTHER)})
    after = await ask(source, {}, newest=True)
    assert (before.revision, after.revision) == (first, second)
    assert after.files[0].checksum == Checksum.of(OTHER)
    kept = await ask(f"git-lfs:{served.url}/org/moving.git@{first}/**/*.bin", {})
    assert kept.files[1].checksum == Checksum.of(WEIGHTS)


@pytest.mark.posix
async def test_a_commit_is_read_once_for_all_its_files(served: GitServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`outdated` asks for each of them: with thousands, reading it for each would take hours."""
    read: list[str] = []

    async def count(repository: str, web: Web, commit: str) -> GitCommit:
        read.append(commit)
        return await read_commit(repository, web, commit)

    monkeypatch.setattr(git_lfs, "read_commit", count)
    connection = HttpTransport().connection()
    web = web_over(connection, retries=0)
    try:
        for path in ("a/w.bin", "a%20b.bin", ""):
            await resolve(f"git-lfs:{served.url}/org/model.git@main/{path}", web, newest=True)
        await resolve(f"git-lfs:{served.url}/org/model.git@{read[0]}/a/w.bin", web, newest=True)
    finally:
        await connection.aclose()
    assert read == [read[0]] * 2  # another name of it stands in other sources


@pytest.mark.posix
async def test_a_server_of_the_repository_s_own_choice(served: GitServer) -> None:
    """Its .lfsconfig names it, as for git-lfs; one that cannot be asked is a failure."""
    config = b'# where\n[lfs]\n\turl = "https://lfs.example/org/model/"\n\tlocksverify = false\n'
    served.repository("org/elsewhere", {**FILES, ".lfsconfig": config})
    found = await ask(f"git-lfs:{served.url}/org/elsewhere.git/a/w.bin", {})
    assert found.files[0].url == f"lfs://lfs.example/org/model/{oid(WEIGHTS)}/{len(WEIGHTS)}"
    served.commit("org/elsewhere", {**FILES, ".lfsconfig": b"[lfs]\nurl = ssh://git@lfs.example/x\n"})
    with pytest.raises(SourceFailed, match=r"lfs\.url in its \.lfsconfig starts with ssh"):
        await ask(f"git-lfs:{served.url}/org/elsewhere.git/a/w.bin", {})


@pytest.mark.posix
@pytest.mark.shows("C15")
@pytest.mark.timeout(60)  # rather than for hours
async def test_where_it_says_so_at_too_great_a_length(served: GitServer) -> None:
    """The usual server is not asked instead, and no reader of settings is given anything that long."""
    for name, padding in (("left-out", True), ("sent", False)):
        config = b"[lfs]\nurl" + b" " * 60_000 + b"x\n"
        served.repository(f"org/{name}", {**FILES, ".lfsconfig": config}, allow_filter=padding)
        with pytest.raises(SourceFailed, match=r"its \.lfsconfig, .*, is longer than 1,024 bytes"):
            await ask(f"git-lfs:{served.url}/org/{name}.git/a/w.bin", {})


@pytest.mark.posix
@pytest.mark.shows("S8", "C15")
@pytest.mark.parametrize("command", [b"command=ls-refs", b"command=fetch"])
async def test_a_complaint_that_repeats_a_token(served: GitServer, command: bytes) -> None:
    """The server's own words are shown, without what it was sent, and without what could move a cursor."""
    complaint = packet(f"ERR no, {TOKEN},\x1b[2J not for you")
    served.override = lambda request: (200, ANSWERED, complaint) if command in request.body else None
    variable = f"GRYM_FETCH_TOKEN_127_0_0_1_PORT_{served.url.rpartition(':')[2]}"
    try:
        with pytest.raises(SourceFailed, match=r"^the git server: it refuses: no, …,\\x1b\[2J not for you") as caught:
            await ask(f"git-lfs:{served.url}/org/model.git", {variable: TOKEN})
    finally:
        served.override = lambda _: None
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert served.requests[-1].fields["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.posix
@pytest.mark.shows("S8")
async def test_names_that_repeat_a_token(served: GitServer) -> None:
    """Nor is it among the nearest names."""
    names = packet(f"{'4d' * 20} refs/heads/main-{TOKEN}") + b"0000"
    served.override = lambda _: (200, ANSWERED, names)
    variable = f"GRYM_FETCH_TOKEN_127_0_0_1_PORT_{served.url.rpartition(':')[2]}"
    try:
        with pytest.raises(UnknownSource, match=r"@main-…$") as caught:
            await ask(f"git-lfs:{served.url}/org/model.git@main-token", {variable: TOKEN})
    finally:
        served.override = lambda _: None
    assert TOKEN not in repr(caught.value)


@pytest.mark.posix
@pytest.mark.parametrize(
    ("below", "reason"),
    [
        ("/org/model.git/a/w.bn", "no file 'a/w.bn'.*Nearest: a/w.bin"),
        ("/org/model.git@v9/a/w.bin", "no revision 'v9'.*Nearest: git-lfs:.*/org/model.git@main"),
        ("/org/model.git@mian/a/w.bin", "no revision 'mian'.*Nearest: git-lfs:.*/org/model.git@main"),
        (f"/org/model.git@{'0' * 40}", "there is no commit 0000"),
        ("/org/modle.git", "no such repository, or it is private"),
        ("/org/model.git/README", "'README' is in git itself"),
        ("/org/model.git/*.zip", "no file matches"),
        ("/org/model.git@", "allowed: git-lfs:https://HOST/OWNER/REPO"),
        ("/org/model.git/%ff", "not followed by UTF-8"),
    ],
)
async def test_what_is_not_there(served: GitServer, below: str, reason: str) -> None:
    """The message says what is missing, and the nearest that is there."""
    with pytest.raises(UnknownSource, match=reason):
        await ask(f"git-lfs:{served.url}{below}", {})


@pytest.mark.posix
async def test_a_repository_without_any(served: GitServer) -> None:
    """It says so."""
    served.repository("org/plain", {"README": b"hi"})
    with pytest.raises(UnknownSource, match="no files in Git LFS"):
        await ask(f"git-lfs:{served.url}/org/plain", {})


@pytest.mark.posix
@pytest.mark.shows("C15")
@pytest.mark.parametrize("body", [b"", b"0000", b"nonsense", b"000dpackfile\n0000", b"0031" + b"f" * 40 + b" x\n"])
async def test_an_answer_that_makes_no_sense(served: GitServer, body: bytes) -> None:
    """It is the git server's failure, with its address."""
    served.override = lambda _: (200, ANSWERED, body)
    try:
        with pytest.raises((SourceFailed, UnknownSource), match=r"the git server: the answer|no commits"):
            await ask(f"git-lfs:{served.url}/org/model.git", {})
    finally:
        served.override = lambda _: None


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("https://h.example/o/r", ("https://h.example/o/r", "", "")),
        ("https://h.example/o/r/a/b.bin", ("https://h.example/o/r", "", "a/b.bin")),
        ("https://h.example/g/s/r.git/a@b.bin", ("https://h.example/g/s/r.git", "", "a@b.bin")),
        ("https://h.example/g/s/r@v%2F1/a@b.bin", ("https://h.example/g/s/r", "v/1", "a@b.bin")),
        ("https://h.example:8443/r.git@v1", ("https://h.example:8443/r.git", "v1", "")),
        ("https://h.example/o/r/?.bin", ("https://h.example/o/r", "", "?.bin")),
        ("http://localhost/o/r@v1/x.git/y", ("http://localhost/o/r", "v1", "x.git/y")),
    ],
)
def test_where_a_repository_ends(address: str, parts: tuple[str, str, str]) -> None:
    """At .git, before the @, or after two parts."""
    place = _LfsPlace.read(f"git-lfs:{address}")
    assert (place.repository, place.revision, place.path) == parts


@pytest.mark.parametrize(
    "address",
    [
        "git-lfs:https://u:p@h.example/o/r",
        "git-lfs:http://h.example/o/r",
        "git-lfs:x",
        "git-lfs:https://h.example/o/r?x",
    ],
)
def test_what_is_no_repository(address: str) -> None:
    """Nor is one that anybody on the way could change."""
    with pytest.raises(UnknownSource, match=r"allowed|plain http|has a \?"):
        _LfsPlace.read(address)


@pytest.mark.parametrize(
    ("page", "address"),
    [
        ("https://github.com/o/r/blob/main/a/w.bin", "git-lfs:https://github.com/o/r@main/a/w.bin"),
        ("https://github.com/o/r/blob/v1/a%20b.bin?raw=true", "git-lfs:https://github.com/o/r@v1/a%20b.bin"),
        ("https://gitlab.example/g/s/r/-/blob/main/w.bin", "git-lfs:https://gitlab.example/g/s/r.git@main/w.bin"),
        ("https://github.com/o/r/raw/main/w.bin", None),
        ("https://github.com/o/r", None),
        ("https://gitlab.com/g/r/-/raw/main/w.bin", None),
    ],
)
def test_pages(page: str, address: str | None) -> None:
    """The page of a file; the address of the file itself stays what it is."""
    assert GitLfs().recognize(page, {}) == address


class Behind:
    """The network, as if this server were another one."""

    environ: Mapping[str, str] = {}

    def __init__(self, web: Web, host: str, url: str) -> None:
        self._web = web
        self._host = host
        self._url = url

    async def get(self, url: str, *, accept: str = "") -> Page:
        """Nothing is asked with a GET."""
        raise AssertionError(url)

    async def post(self, url: str, body: bytes, *, accept: str = "", fields: Mapping[str, str] | None = None) -> Page:
        """Ask the server here."""
        assert url.startswith(f"{self._host}/")
        return await self._web.post(url.replace(self._host, self._url), body, accept=accept, fields=fields)


@pytest.mark.posix
@pytest.mark.parametrize(
    ("host", "plain", "raw"),
    [
        (
            "https://github.com",
            "https://media.githubusercontent.com/media/org/model/{commit}/a%20b.bin",
            "https://raw.githubusercontent.com/org/model/{commit}/README",
        ),
        (
            "https://gitlab.com",
            "https://gitlab.com/org/model/-/raw/{commit}/a%20b.bin",
            "https://gitlab.com/org/model/-/raw/{commit}/README",
        ),
        ("https://git.example", "", ""),
    ],
)
async def test_where_there_are_plain_addresses(served: GitServer, host: str, plain: str, raw: str) -> None:
    """They come first, with the commit in them; the server's own is the mirror, as for a private repository."""
    connection = HttpTransport().connection()
    web = Behind(web_over(connection, retries=0), host, served.url)
    try:
        found = await resolve(f"git-lfs:{host}/org/model.git/a%20b.bin", web)
        with pytest.raises(UnknownSource) as caught:
            await resolve(f"git-lfs:{host}/org/model.git/README", web)
    finally:
        await connection.aclose()
    [file] = found.files
    own = f"lfs://{host.removeprefix('https://')}/org/model.git/info/lfs/{oid(OTHER)}/{len(OTHER)}"
    assert [file.url, *file.mirrors] == ([plain.format(commit=found.revision)] if plain else []) + [own]
    assert list(caught.value.suggestions) == ([raw.format(commit=found.revision)] if raw else [])
    [asset] = as_assets(found, Naming(fallback_urls=("https://mirror.example/x",)))
    assert asset.fallback_urls == ("https://mirror.example/x", *file.mirrors)


def test_the_address_of_a_pointer() -> None:
    """The repository alone is enough: the pointer says the rest."""
    assert pointed_at("git-lfs:https://h.example/o/r", "4d" * 32, 7) == (
        f"lfs://h.example/o/r.git/info/lfs/{'4d' * 32}/7"
    )
