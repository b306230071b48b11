"""What a git server is asked, against git's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from grym_fetch.errors import SourceFailed
from grym_fetch.net.client import HttpTransport
from grym_fetch.sources import Web
from grym_fetch.sources.git import GitRefused, list_refs, read_commit
from tests.sources.asking import web_over
from tests.support.git_lfs import GitServer, pointer_to, serving_git

FILES = {"a/w.bin": pointer_to(b"content"), "big.txt": b"y" * 5000, "README": b"hi"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    """One server for all of these tests."""
    with serving_git(tmp_path_factory.mktemp("git")) as running:
        yield running


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """The network."""
    connection = HttpTransport().connection()
    yield web_over(connection, retries=0)
    await connection.aclose()


@pytest.mark.posix
@pytest.mark.parametrize(("allow_filter", "hash_name"), [(True, "sha1"), (False, "sha1"), (True, "sha256")])
async def test_a_commit(served: GitServer, web: Web, allow_filter: bool, hash_name: str) -> None:
    """Its folders and its small files come; large ones only from a server that cannot leave them out."""
    name = f"org/commit-{allow_filter}-{hash_name}"
    commit = served.repository(name, FILES, allow_filter=allow_filter, hash_name=hash_name)
    url = f"{served.url}/{name}.git"
    assert await list_refs(url, web, "HEAD") == {"HEAD": (commit, "refs/heads/main")}
    found = await read_commit(url, web, commit)
    assert [file.path for file in found.files] == ["README", "a/w.bin", "big.txt"]
    contents = {file.path: found.contents.get(file.oid) for file in found.files}
    assert contents == {**FILES, "big.txt": None} if allow_filter else FILES


@pytest.mark.posix
async def test_a_tag_is_its_commit(served: GitServer, web: Web) -> None:
    """Also one that is an object of its own."""
    commit = served.repository("org/tags", FILES)
    who = {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.example"}
    served.git("tag", "-a", "-m", "first", "v1", commit, within="org/tags.git", stdin=b"", **who)
    assert await list_refs(f"{served.url}/org/tags.git", web, "refs/tags/v1") == {"refs/tags/v1": (commit, "")}


@pytest.mark.posix
async def test_many_versions_of_one_folder(served: GitServer, web: Web) -> None:
    """Git then sends folders as changes of other folders; the commit asked for comes alone."""
    many = {f"file-{number:04d}-with-a-long-name.bin": pointer_to(b"%d" % number) for number in range(400)}
    served.repository("org/many", many)
    both = {f"x/{path}": content for path, content in many.items()} | many | {"y/z": b"z"}
    commit = served.commit("org/many", {**both, **{f"y/{path}": content for path, content in many.items()}})
    served.git("gc", "-q", "--aggressive", within="org/many.git")
    found = await read_commit(f"{served.url}/org/many.git", web, commit)
    assert len(found.files) == 1201


@pytest.mark.posix
async def test_what_is_no_repository(served: GitServer, web: Web) -> None:
    """A refusal is told apart from an answer that is not git's."""
    with pytest.raises(GitRefused):
        await list_refs(f"{served.url}/org/missing.git", web, "HEAD")
    served.override = lambda _: (200, {"Content-Type": "text/html"}, b"<html>")
    try:
        with pytest.raises(SourceFailed, match="is this the address of a repository"):
            await list_refs(f"{served.url}/page", web, "HEAD")
    finally:
        served.override = lambda _: None
