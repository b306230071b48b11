"""Git LFS, with git's own server, giftless, and the git-lfs client, which puts in what we take out."""

from __future__ import annotations

import hashlib
import json
import signal
from functools import partial
from pathlib import Path

import pytest

from grym_fetch.testing import seeded_bytes
from tests.end_to_end.command import Running, run
from tests.support.git_lfs import GitRequest, RangedStore, giftless, pointer_to, serving_git
from tests.support.project import Project

SIZE = 4 * 1024 * 1024


@pytest.mark.sweep
@pytest.mark.git_lfs
@pytest.mark.package("giftless", "flask", "flask_marshmallow", "flask_classful", "webargs", "figcan", "dotenv", "jwt")
def test_what_git_lfs_has_put_into_giftless(tmp_path: Path, project: Project) -> None:
    """The same bytes as `git lfs pull` brings, by a place that the server signs for a minute."""
    content = seeded_bytes(300_000, seed=5)
    project.write()
    with serving_git(tmp_path) as served:
        served.lfs = giftless(tmp_path)
        served.git("init", "-q", "--bare", "-b", "main", "org/model.git")
        for setting in ("http.receivepack", "uploadpack.allowFilter"):
            served.git("config", setting, "true", within="org/model.git")
        served.git("clone", "-q", f"{served.url}/org/model.git", "work")
        (tmp_path / "work/weights.bin").write_bytes(content)
        served.git("lfs", "install", "--local", within="work")
        served.git("lfs", "track", "*.bin", within="work")
        served.git("add", "-A", within="work")
        served.git("-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "-qm", "m", within="work")
        served.git("push", "-q", "origin", "HEAD:main", within="work")
        served.requests.clear()
        added = run(project.root, "add", f"git-lfs:{served.url}/org/model.git")
        assert added.code == 0, added.err
        assert [request.path for request in served.requests] == ["/org/model.git/git-upload-pack"] * 2
        done = run(project.root, "sync", "--json", "-vv")
    assert done.code == 0, done.err
    assert (project.assets / "model/weights.bin").read_bytes() == content
    [fetched] = [request.path for request in served.requests if request.method == "GET"]
    signature = fetched.partition("jwt=")[2]
    assert signature
    assert signature.encode() not in (added.out + added.err + done.out + done.err).encode() + project.all_text()


@pytest.mark.shows("S7")
def test_a_killed_sync_is_resumed_at_a_new_place(tmp_path: Path, project: Project) -> None:
    """What has arrived is kept; the server is asked anew, and what it lends is neither told nor stored."""
    content = seeded_bytes(SIZE, seed=22)
    with serving_git(tmp_path) as served:
        served.repository("org/model", {"w.bin": pointer_to(content)})
        store = served.lfs = RangedStore(served, content)
        project.write()
        assert run(project.root, "add", f"git-lfs:{served.url}/org/model.git/w.bin").code == 0
        slow = ("sync", "--json", "-vv", "--parallel", "1", "--limit-rate", "2M")
        with Running(project.root, *slow) as running:
            running.until_stored(project, 1)
            running.send(signal.SIGKILL)
            killed = running.finish()
        before = store.lent
        done = run(project.root, "sync", "--json", "-vv")
    assert done.code == 0, done.err
    assert (project.assets / "w.bin").read_bytes() == content
    resumed = done.of("asset_planned")[0]["resumed_bytes"]
    assert isinstance(resumed, int)
    assert resumed > 0
    assert store.lent > before
    told = (killed.out + killed.err + done.out + done.err).encode() + project.all_text()
    assert b"lent-to-you" not in told


def test_other_bytes_than_the_pointer_states(tmp_path: Path, project: Project) -> None:
    """An integrity error; an object that the server has not is told with the server's own words."""
    content = seeded_bytes(50_000, seed=23)
    with serving_git(tmp_path) as served:
        served.repository("org/model", {"w.bin": pointer_to(content)})
        served.lfs = RangedStore(served, bytes(50_000))
        project.write()
        assert run(project.root, "add", f"git-lfs:{served.url}/org/model.git/w.bin").code == 0
        assert run(project.root, "sync").code == 3
        assert not (project.assets / "w.bin").exists()

        def missing(request: GitRequest) -> tuple[int, dict[str, str], bytes]:
            [wanted] = json.loads(request.body)["objects"]
            error = {**wanted, "error": {"code": 404, "message": "gone with the wind"}}
            return 200, {}, json.dumps({"objects": [error]}).encode()

        served.lfs = missing
        failed = run(project.root, "sync", "--retries", "0")
    assert failed.code == 1
    assert "status 404 from the Git LFS server: gone with the wind" in failed.err


@pytest.mark.shows("S9")
def test_a_place_that_is_never_asked(tmp_path: Path, project: Project) -> None:
    """A server cannot have the machine's credentials fetched, nor anything sent where anybody reads it."""
    content = seeded_bytes(50_000, seed=25)
    with serving_git(tmp_path) as served:
        oid = hashlib.sha256(content).hexdigest()
        project.add("w", [f"lfs://{served.url.removeprefix('http://')}/o/r.git/info/lfs/{oid}/50000"], content)
        for place, reason in (
            ("https://169.254.169.254/latest", "a link-local or cloud metadata address"),
            ("http://store.example/x", "names a plain http address"),
        ):
            download = {"href": place, "header": {"Authorization": "Basic bGVudC1zZWNyZXQ="}, "expires_in": -1}
            found = {"oid": oid, "size": 50_000, "actions": {"download": download}}
            answer = 200, dict[str, str](), json.dumps({"objects": [found]}).encode()
            served.lfs = partial(lambda given, _: given, answer)
            failed = run(project.root, "sync", "--retries", "0", "-vv")
            assert failed.code == 1
            assert reason in failed.err
            assert "bGVudC1zZWNyZXQ" not in failed.err


def test_a_pointer_of_a_clone(tmp_path: Path, project: Project) -> None:
    """With the repository's address, as the page on sources says."""
    content = seeded_bytes(50_000, seed=24)
    pointer = tmp_path / "w.bin"
    pointer.write_bytes(pointer_to(content))
    project.write()
    with serving_git(tmp_path) as served:
        served.lfs = RangedStore(served, content)
        added = run(project.root, "add", str(pointer), "--url", f"git-lfs:{served.url}/org/model")
        assert added.code == 0, added.err
        done = run(project.root, "sync")
    assert done.code == 0, done.err
    assert (project.assets / "w.bin").read_bytes() == content
