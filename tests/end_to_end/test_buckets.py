"""Buckets, with a real S3 server and the real command."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from grym_fetch.testing import seeded_bytes
from tests.end_to_end.command import Running, run
from tests.support.buckets import SECRET, S3Server, serving_s3
from tests.support.project import Project

pytestmark = pytest.mark.package("moto", "flask", "flask_cors", "obstore")

MIB = 1024 * 1024
SIZE = 4 * MIB


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """One server for all tests: it starts in two seconds."""
    with serving_s3() as running:
        yield running


@pytest.mark.shows("S7")
@pytest.mark.sweep
def test_a_killed_sync_is_resumed_with_new_keys(s3: S3Server, project: Project) -> None:
    """What has arrived is kept; the address is signed anew, and neither keys nor signatures are told or stored."""
    content = seeded_bytes(SIZE, seed=21)
    final = project.add("weights", [s3.add("models", "v1/my weights.bin", content).replace(" ", "%20")], content)
    slow = ("sync", "--json", "-vv", "--parallel", "1", "--limit-rate", "2M")
    with Running(project.root, *slow, **s3.environment()) as running:
        running.until_stored(project, 1)
        running.send(signal.SIGKILL)
        killed = running.finish()
    before = list(s3.asked)
    environ = s3.environment() | {"AWS_SECRET_ACCESS_KEY": SECRET[::-1]}
    done = run(project.root, "sync", "--json", "-vv", **environ)
    assert done.code == 0, done.err
    assert final.read_bytes() == content
    resumed = done.of("asset_planned")[0]["resumed_bytes"]
    assert isinstance(resumed, int)
    assert resumed > 0
    assert done.of("asset_verified")[0]["downloaded_bytes"] == SIZE - resumed
    signatures = [{url.query["X-Amz-Signature"] for url in some} for some in (before, s3.asked[len(before) :])]
    assert all(signatures)
    assert signatures[0].isdisjoint(signatures[1])
    told = (killed.out + killed.err + done.out + done.err).encode() + project.all_text()
    for secret in (SECRET, SECRET[::-1], *signatures[0], *signatures[1]):
        assert secret.encode() not in told


@pytest.mark.sweep
def test_small_files_of_a_bucket(s3: S3Server, project: Project) -> None:
    """Many small objects are fetched together, each by an address of its own."""
    for number in range(12):
        content = seeded_bytes(1000 + number, seed=number)
        project.add(f"a{number}", [s3.add("small", f"{number}.bin", content)], content)
    done = run(project.root, "sync", "--json", **s3.environment())
    assert done.code == 0, done.err
    assert all(project.finals()[name].read_bytes() == content for name, content in project.contents.items())


@pytest.mark.sweep
def test_add_writes_the_address_of_the_bucket(s3: S3Server, project: Project) -> None:
    """Others sign with keys of their own; `doctor` and `info` show the address as it is listed."""
    content = seeded_bytes(5000, seed=3)
    project.write()
    address = s3.add("added", "a.bin", content)
    added = run(project.root, "add", address, **s3.environment())
    assert added.code == 0, added.err
    (entry,) = json.loads(project.manifest.read_text())["assets"]
    assert entry["url"] == address
    assert entry["size"] == 5000
    doctor = run(project.root, "doctor", **s3.environment())
    assert f"{address}: status 206" in doctor.out
    assert "127.0.0.1" not in doctor.out
    missing = run(project.root, "add", "s3://added/b.bin", **s3.environment())
    assert missing.code == 1
    assert "status 404: not found; see that bucket and key are right" in missing.err
    assert "s3://added/b.bin" in missing.err


def test_a_bucket_that_is_not_open_says_which_keys_it_wants(s3: S3Server, project: Project) -> None:
    """Without keys the plain address is asked, and a refusal names the variables."""
    content = seeded_bytes(5000, seed=4)
    project.add("a", [s3.add("closed", "a.bin", content)], content)
    environ = {"AWS_ENDPOINT_URL_S3": s3.endpoint, "HOME": str(project.root)}
    done = run(project.root, "sync", **environ)
    assert done.code == 1
    assert "status 403: access denied; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in done.err
    assert not project.finals()["a"].exists()
