"""What a user types, and what happens: exit codes and messages of the real command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from grym_fetch.testing import AssetServer, Reset, Status, WrongFile, seeded_bytes
from tests.end_to_end.command import run
from tests.support.project import Project

CONTENT = seeded_bytes(300_000, seed=1)


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    made = Project(tmp_path / "project")
    file = server.add("/a.bin", CONTENT)
    made.add("model-a", [file.url], CONTENT, tags=["model", "essential"])
    made.add("model-b", [file.url], CONTENT, required=False, tags=["other"])
    return made


BROKEN = {
    "no JSON": ('{"assets": [', "JSON"),
    "missing keys": ('{"assets": [{"id": "a"}]}', "localPath"),
    "duplicate ids": (
        '{"assets": [{"id":"a","url":"http://x/a","localPath":"a"},{"id":"a","url":"http://x/b","localPath":"b"}]}',
        "id",
    ),
    "one path twice": (
        '{"assets": [{"id":"a","url":"http://x/a","localPath":"p"},{"id":"b","url":"http://x/b","localPath":"p"}]}',
        "localPath",
    ),
    "dot dot": ('{"assets": [{"id":"a","url":"http://x/a","localPath":"../a"}]}', ".."),
    "absolute": ('{"assets": [{"id":"a","url":"http://x/a","localPath":"/etc/a"}]}', "localPath"),
    "negative size": ('{"assets": [{"id":"a","url":"http://x/a","localPath":"a","size":-1}]}', "size"),
    "checksum": ('{"assets": [{"id":"a","url":"http://x/a","localPath":"a","checksum":"abc"}]}', "checksum"),
    "scheme": ('{"assets": [{"id":"a","url":"ftp://x/a","localPath":"a"}]}', "url"),
}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.sweep] if n > 1 else [])
        for n, (name, case) in enumerate(BROKEN.items())
    ],
)
def test_a_broken_manifest(project: Project, server: AssetServer, text: str, named: str) -> None:
    """A manifest with a problem is refused as a whole, with what is wrong and where, and exit code 2."""
    project.manifest.write_text(text)
    done = run(project.root, "sync")
    assert done.code == 2
    assert named in done.err
    assert "assets.json" in done.err
    assert len(done.err.splitlines()) <= 6
    assert not server.stats.requests


def test_no_manifest(tmp_path: Path) -> None:
    """Without a manifest the error says where it was searched for."""
    (tmp_path / ".git").mkdir()
    done = run(tmp_path, "sync")
    assert done.code == 2
    assert "assets.json" in done.err


def test_an_unknown_id_suggests_the_nearest(project: Project, server: AssetServer) -> None:
    """A misspelt id is wrong usage and fetches nothing."""
    done = run(project.root, "sync", "model-aa")
    assert done.code == 2
    assert "model-a" in done.err
    assert not server.stats.requests


def test_choices(project: Project) -> None:
    """Without a choice, the required assets; with --tag, --asset-id, ids or --all, those chosen."""

    def chosen(*arguments: str) -> set[str]:
        plan = json.loads(run(project.root, "sync", "--dry-run", "--json", *arguments).out)
        return {entry["id"] for entry in plan["fetch"]}

    assert chosen() == {"model-a"}
    assert chosen("--all") == {"model-a", "model-b"}
    assert chosen("--tag", "other") == {"model-b"}
    assert chosen("--asset-id", "model-b") == {"model-b"}
    assert chosen("--tag", "model", "model-b") == {"model-a", "model-b"}
    assert chosen("--minimal") == {"model-a"}


def test_nothing_is_marked(project: Project) -> None:
    """If no asset is required, a plain sync fetches all and says so on stderr; with a choice it does not."""
    for entry in project.entries:
        entry["required"] = False
    project.write()
    done = run(project.root, "sync")
    assert done.code == 0
    assert done.err.startswith("no asset is marked as required: taking all 2\n")
    assert all(path.exists() for path in project.finals().values())
    assert "marked" not in run(project.root, "sync", "--minimal", "--dry-run").err
    assert "marked" not in run(project.root, "sync", "--all", "--dry-run").err


def test_sync_check_path_list_info(project: Project, server: AssetServer) -> None:
    """The commands agree with each other before and after a sync."""
    assert run(project.root, "check").code == 1
    assert run(project.root, "path", "model-a", "--offline").code == 1
    assert run(project.root, "sync").code == 0
    assert run(project.root, "check", "model-a").code == 0
    path = run(project.root, "path", "model-a").out.strip()
    assert Path(path).read_bytes() == CONTENT
    listed = [json.loads(line) for line in run(project.root, "list", "--json").out.splitlines()]
    assert [(entry["id"], entry["state"]) for entry in listed] == [("model-a", "verified"), ("model-b", "missing")]
    info = run(project.root, "info", "model-a").out
    assert str(len(CONTENT)) in info
    Path(path).write_bytes(b"x" * len(CONTENT))
    done = run(project.root, "check", "model-a")
    assert done.code == 3
    assert "checksum mismatch" in done.out
    # A corrupt file is fetched again.
    assert run(project.root, "sync").code == 0
    assert Path(path).read_bytes() == CONTENT


def test_path_fetches_what_is_missing(project: Project) -> None:
    """`path` prints only the path on stdout, and fetches the asset for it."""
    done = run(project.root, "path", "model-b")
    assert done.code == 0
    assert Path(done.out.strip()).read_bytes() == CONTENT


def test_force_fetches_again(project: Project, server: AssetServer) -> None:
    """--force downloads a valid file again."""
    run(project.root, "sync")
    before = server.stats.body_bytes_sent
    done = run(project.root, "sync", "--force", "--json")
    assert done.code == 0
    assert server.stats.body_bytes_sent - before == len(CONTENT)
    assert done.of("asset_verified")


@pytest.mark.shows("M17")
def test_exit_codes(project: Project, server: AssetServer) -> None:
    """1 for not fetched, 3 for integrity; if both apply, 3."""
    gone = server.add("/gone.bin", CONTENT, faults=[Status(404)])
    wrong = server.add("/wrong.bin", CONTENT, faults=[WrongFile()])
    project.add("gone", [gone.url], CONTENT)
    project.add("wrong", [wrong.url], CONTENT)
    done = run(project.root, "sync", "gone")
    assert done.code == 1
    assert "404" in done.err
    assert run(project.root, "sync", "wrong").code == 3
    both = run(project.root, "sync", "gone", "wrong", "model-a", "--json")
    assert both.code == 3
    assert both.of("run_finished")[0]["failed"] == 2
    assert both.of("asset_verified")[0]["asset"] == "model-a"


@pytest.mark.shows("M9", "S1")
def test_unpinned_is_refused_unless_allowed(project: Project, server: AssetServer) -> None:
    """An asset without a checksum is refused with the way out, and always reported as unverified afterwards."""
    file = server.add("/u.bin", CONTENT)
    path = project.add("loose", [file.url], CONTENT, pinned=False)
    done = run(project.root, "sync", "loose")
    assert done.code == 1
    assert "grym-fetch pin loose" in done.err
    assert not path.exists()
    done = run(project.root, "sync", "loose", "--allow-unpinned", "--json")
    assert done.code == 0
    assert done.of("asset_verified")[0]["unverified"] is True
    assert path.read_bytes() == CONTENT
    checked = run(project.root, "check", "loose", "--json")
    assert json.loads(checked.out)["state"] == "unverified"
    assert checked.code == 1


@pytest.mark.shows("S7")
def test_usage(project: Project) -> None:
    """Wrong usage is exit code 2 with a hint; a header is refused because a command line is not secret."""
    assert run(project.root, "sync", "-j", "0").code == 2
    assert run(project.root, "sync", "--limit-rate", "fast").code == 2
    done = run(project.root, "sync", "--header", "Authorization: Bearer x")
    assert done.code == 2
    assert "GRYM_FETCH_TOKEN_" in done.err
    assert run(project.root, "sync", "--tag", "nope").code == 2
    done = run(project.root, "snyc")
    assert done.code == 2
    assert "sync" in done.err


def test_common_options_before_the_command(project: Project) -> None:
    """Options common to all commands may also come before the command's name; others may not."""
    manifest = str(project.manifest)
    done = run(project.root.parent, "-q", "--config", manifest, f"--assets-dir={project.root}/there", "sync", "--json")
    assert (done.code, done.err) == (0, "")
    assert list((project.root / "there").glob("models/*"))
    assert run(project.root, "-vq", "--json", "--help").out.startswith("Usage: grym-fetch")
    for arguments in (("--parallel", "2", "sync"), ("-q", "--all", "sync"), ("--config",)):
        assert run(project.root, *arguments).code == 2


def test_quiet_prints_nothing_but_errors(project: Project, server: AssetServer) -> None:
    """-q prints nothing when all is well, and only then."""
    done = run(project.root, "sync", "-q")
    assert (done.code, done.out, done.err) == (0, "", "")
    file = server.add("/gone.bin", CONTENT, faults=[Status(410)])
    project.add("gone", [file.url], CONTENT)
    assert "410" in run(project.root, "sync", "-q", "gone").err


def test_options_from_the_environment(project: Project) -> None:
    """Every option has a variable; the option wins."""
    other = project.root / "elsewhere"
    done = run(project.root, "path", "model-a", GRYM_FETCH_ASSETS_DIR=str(other))
    assert done.out.strip().startswith(str(other))
    done = run(project.root, "sync", "--dry-run", "--json", GRYM_FETCH_ALL="1")
    assert len(json.loads(done.out)["fetch"]) == 2


def test_the_log_file(project: Project) -> None:
    """In production the log goes to a file too, with one line per event."""
    done = run(project.root, "sync", GRYM_FETCH_ENV="production")
    assert done.code == 0
    lines = (project.root / "logs" / "asset-manager.log").read_text().splitlines()
    assert any("asset_verified" in line for line in lines)
    assert run(project.root, "sync", "--log-file", str(project.root / "x.log")).code == 0
    assert "asset_reused" in (project.root / "x.log").read_text()


@pytest.mark.shows("U4", "M13", "S8")
def test_no_secret_is_printed(project: Project, server: AssetServer) -> None:
    """A secret in an address is in no output, log or state file, even with -vv and after a failure."""
    canary = "s3cr3t"
    file = server.add("/s.bin", CONTENT, faults=[Reset(after=1000)])
    url = file.url.replace("http://", f"http://u:{canary}@") + f"?sig={canary}"
    project.add("secret", [url], CONTENT)
    done = run(project.root, "sync", "secret", "-vv", "--retries", "1", "--log-file", "x.log")
    assert done.code == 1
    assert canary not in done.out + done.err + (project.root / "x.log").read_text()
    assert canary.encode() not in project.all_text()


@pytest.mark.shows("S8")
def test_verbose_tells_switches_and_very_verbose_each_request(project: Project, server: AssetServer) -> None:
    """With -v, retries and mirrors; with -vv also the requests, their status and time, and never a query."""
    gone = server.add("/gone.bin", CONTENT, faults=[Status(404)])
    good = server.add("/good.bin", CONTENT)
    project.add("both", [f"{gone.url}?k=s3cr3t", good.url], CONTENT)
    done = run(project.root, "sync", "both", "-v")
    assert (done.code, "now from mirror 2 of 2" in done.err, "GET" in done.err) == (0, True, False)
    done = run(project.root, "sync", "both", "--force", "-vv")
    assert re.search(rf"debug: GET {re.escape(gone.url)} bytes=0-\d+: 404 in \d+ ms", done.err)
    assert re.search(rf"debug: GET {re.escape(good.url)} bytes=0-\d+: 206 in \d+ ms", done.err)
    assert "s3cr3t" not in done.err


@pytest.mark.shows("U7")
def test_a_plain_pipe_gets_plain_lines(project: Project) -> None:
    """If stderr is not a terminal, there is no escape sequence and no carriage return."""
    done = run(project.root, "sync", FORCE_COLOR="1")
    assert "\x1b" not in done.err
    assert "\r" not in done.err
    assert "verified" in done.err
