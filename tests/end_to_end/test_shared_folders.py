"""Commands of several users in one folder: a team that shares it, an image made by root, and attackers."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from grym_fetch.core.digest import Checksum
from grym_fetch.disk.verified import FileSignature, VerifiedFile, encode_entry
from grym_fetch.testing import AssetServer, seeded_bytes
from tests.end_to_end.command import Done, command_as, environment, run, run_as
from tests.support.other_user import ANNA, BERT, TEAM, as_user, needs_root

pytestmark = [needs_root, pytest.mark.sweep]

CONTENT = seeded_bytes(100_000, seed=1)
NAMED = ("--config", "assets.json")


def tar_of(count: int) -> bytes:
    """An archive of this many small files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(count):
            made = tarfile.TarInfo(f"voices/{number}")
            made.size = 10
            tar.addfile(made, io.BytesIO(b"%010d" % number))
    return out.getvalue()


class Shared:
    """A project folder that every user can reach, with a home folder for each."""

    def __init__(self, above: Path, server: AssetServer) -> None:
        self.above, self.root, self.server = above, above / "project", server
        self.assets, self.manifest = self.root / "assets", self.root / "assets.json"
        self.root.mkdir()
        for user in (ANNA, BERT):
            self.home(user).mkdir()
            os.chown(self.home(user), user, user)

    def home(self, user: int) -> Path:
        """A user's home folder."""
        return self.above / f"home-{user}"

    def list_assets(self, members: int = 3) -> None:
        """List a file, and an archive to unpack."""
        self.list_files({"model.bin": CONTENT, "voices.tar": tar_of(members)})

    def list_files(self, files: Mapping[str, bytes]) -> None:
        """List some files; archives among them are unpacked."""
        entries = [
            {
                "id": name.partition(".")[0],
                "url": self.server.add(f"/{name}", content).url,
                "localPath": f"m/{name}",
                "checksum": str(Checksum.of(content)),
                "size": len(content),
                "required": True,
                "extract": name.endswith(".tar"),
            }
            for name, content in files.items()
        ]
        self.manifest.write_text(json.dumps({"version": "1.0", "assets": entries}))

    def give(self, owner: int) -> None:
        """Set it up as a team does: its own group, setgid, group-writable."""
        for path in (self.root, self.manifest):
            os.chown(path, owner, TEAM)
        self.root.chmod(0o2775)
        self.manifest.chmod(0o664)

    def run(self, user: int, *arguments: str, **more: str) -> Done:
        """Run a command as this user. None may end in a traceback, or be called a bug."""
        return self.run_in(self.root, user, *arguments, **more)

    def run_in(self, folder: Path, user: int, *arguments: str, **more: str) -> Done:
        """`run` in a folder other than the project's."""
        done = run_as(user, folder, *arguments, **self._places(user) | more)
        assert "Traceback" not in done.err
        assert "bug" not in done.err
        return done

    @contextmanager
    def running(self, user: int, *arguments: str, under: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
        """Start a command as this user under a program; it is ended with the block."""
        process = subprocess.Popen(
            [*under, *command_as(user, *arguments)],
            cwd=self.root,
            env=environment(**self._places(user)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def _places(self, user: int) -> dict[str, str]:
        return {"HOME": str(self.home(user)), "XDG_STATE_HOME": ""}


@pytest.fixture
def shared(server: AssetServer) -> Iterator[Shared]:
    """A project that other users can reach."""
    above = Path(tempfile.mkdtemp(dir="/tmp", prefix="shared-"))
    above.chmod(0o755)
    yield Shared(above, server)
    shutil.rmtree(above)


@pytest.mark.shows("S20")
def test_a_team_shares_a_folder(shared: Shared) -> None:
    """What one user fetched, the other checks, uses, prunes and fetches again; each has a state of their own."""
    shared.list_assets()
    shared.give(ANNA)
    assert shared.run(ANNA, "sync").code == 0
    refused = shared.run(BERT, "check")
    assert refused.code == 2
    assert f"belongs to user {ANNA}" in refused.err
    checked = shared.run(BERT, "check", *NAMED)
    assert (checked.code, checked.out.count("verified ")) == (0, 2), checked.out + checked.err
    assert shared.run(BERT, "path", "voices", "--offline", *NAMED).code == 0
    assert shared.run(BERT, "prune", *NAMED).code == 0
    assert shared.run(BERT, "sync", "--force", *NAMED).code == 0
    asked = len(shared.server.stats.requests)
    assert shared.run(ANNA, "sync").code == 0
    assert len(shared.server.stats.requests) == asked, "what Bert has fetched is right"
    state = shared.assets / ".grym-fetch"
    assert {path.stat().st_uid for path in state.glob("user-*")} == {ANNA, BERT}


@pytest.mark.shows("S20")
@pytest.mark.parametrize("has_home", [True, False])
def test_an_image_that_root_has_made(shared: Shared, has_home: bool) -> None:
    """Another user without write permission finds all of it right, including the unpacked tree, and is told once."""
    shared.list_assets()
    assert run(shared.root, "sync").code == 0
    more = {} if has_home else {"HOME": "/nonexistent"}
    first, second = (shared.run(BERT, "check", **more) for _ in range(2))
    assert (first.code, first.out.count("verified ")) == (0, 2), first.out + first.err
    assert second.out == first.out
    assert ("is remembered in" in first.err, second.err) == (has_home, "all 2 verified\n")
    asked = len(shared.server.stats.requests)
    assert shared.run(BERT, "sync", **more).code == 0
    assert shared.run(BERT, "path", "voices", "--offline", **more).code == 0
    assert len(shared.server.stats.requests) == asked
    forced = shared.run(BERT, "sync", "--force", **more)
    assert forced.code == 4
    assert "belongs to 'root' (mode 755)" in forced.err


@pytest.mark.shows("S20")
def test_pipes_in_the_place_of_all_that_is_ours(shared: Shared) -> None:
    """Whoever put them there, every command ends, and none believes that an asset is missing."""
    shared.list_assets()
    shared.give(BERT)
    assert shared.run(BERT, "sync").code == 0
    state = shared.assets / ".grym-fetch"
    own = state / f"user-{BERT}"
    for path in sorted([*own.rglob("*"), state / "locks"], reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
        if path.parent in (own, state):
            os.mkfifo(path)
            os.chown(path, BERT, BERT)
    checked = shared.run(BERT, "check")
    assert (checked.code, checked.out.count("verified ")) == (0, 2), checked.out + checked.err
    for command in (["sync"], ["list"], ["path", "voices"]):
        assert shared.run(BERT, *command).code == 0
    pruned = shared.run(BERT, "prune")
    assert pruned.code == 4
    assert f"not a folder ({state}/locks)" in pruned.err


@pytest.mark.shows("S5", "S20")
def test_a_state_folder_that_is_swapped_while_unpacking(shared: Shared) -> None:
    """The folder's owner may move our state away and point its name elsewhere: nothing is created there."""
    shared.list_assets(3000)
    shared.give(ANNA)
    state = shared.assets / ".grym-fetch"
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            if any((state / f"user-{BERT}" / "unpack").glob("*/tree/voices")):
                state.rename(shared.root / "aside")
                state.symlink_to(shared.home(BERT))
                return

    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        done = shared.run(BERT, "sync", *NAMED)
    finally:
        ended.set()
        attacker.join()
    assert state.is_symlink(), "the attack came too late"
    assert done.code in (0, 4)
    assert list(shared.home(BERT).iterdir()) in ([], [shared.home(BERT) / ".local"])


@pytest.mark.strace
@pytest.mark.shows("S20")
@pytest.mark.parametrize(
    "files", [{"model.bin": CONTENT}, {"small.bin": b"small", "other.bin": b"other"}], ids=["model", "small"]
)
def test_a_file_that_is_swapped_right_after_its_rename(shared: Shared, files: dict[str, bytes]) -> None:
    """Stopped between the rename and the stamp, while another user puts a file there: it is not "verified"."""
    shared.list_files(files)
    shared.give(ANNA)
    folder = shared.assets / "m"
    as_user(ANNA, lambda: folder.mkdir(parents=True))
    renames = "rename,renameat,renameat2"
    # Only once: strace loses track of a process that is stopped and woken repeatedly.
    stopped = ["-P", str(folder), "-e", f"trace={renames}", "-e", f"inject={renames}:signal=STOP:when=1"]
    with shared.running(
        BERT, "sync", "--json", *NAMED, under=["strace", "-f", "-qq", "-o", os.devnull, *stopped]
    ) as victim:
        while not (there := [folder / name for name in files if (folder / name).exists()]):
            assert not ended(victim), victim.communicate()
        target = there[0]
        evil = files[target.name][::-1]

        def swap() -> None:
            (folder / "evil").write_bytes(evil)
            (folder / "evil").rename(target)

        as_user(ANNA, swap)
        while not ended(victim):
            go_on(victim)
        out, err = victim.communicate()
    assert victim.returncode == 4, err
    assert "somebody else changed or replaced this file" in err
    verified = [event["asset"] for event in map(json.loads, out.splitlines()) if event["type"] == "asset_verified"]
    assert target.stem not in verified
    assert target.read_bytes() == evil
    checked = shared.run(BERT, "check", target.stem, *NAMED)
    assert checked.code == 3, checked.out + checked.err


def ended(victim: subprocess.Popen[str]) -> bool:
    """Whether it has ended, or ends now."""
    try:
        victim.wait(0.01)
    except subprocess.TimeoutExpired:
        return False
    return True


def go_on(victim: subprocess.Popen[str]) -> None:
    """Continue the process under strace, if it was stopped."""
    for child in Path(f"/proc/{victim.pid}/task/{victim.pid}/children").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGCONT)


@pytest.mark.shows("S1", "S20")
@pytest.mark.parametrize("whose", ["hers", "his"])
def test_a_forged_log_vouches_for_nothing(shared: Shared, whose: str) -> None:
    """Anna's file, and a log in place of Bert's: in a folder of hers, or in a shared one of his that she moved."""
    shared.list_files({"model.bin": CONTENT})
    shared.give(ANNA)
    model, state, drafts = shared.assets / "m/model.bin", shared.assets / ".grym-fetch", shared.assets / "drafts"
    place = state / f"user-{BERT}"

    def lend() -> None:
        drafts.mkdir()
        (drafts / "notes").write_bytes(b"his own")

    def forge() -> None:
        model.write_bytes(CONTENT[::-1])
        log = encode_entry(VerifiedFile(str(model), str(Checksum.of(CONTENT)), FileSignature.of(model.stat())))
        if whose == "his":
            (drafts / "notes").write_bytes(log)  # it stays his
            (drafts / "notes").rename(drafts / "verified.log")
            drafts.rename(place)
        else:
            place.mkdir()
            (place / "verified.log").write_bytes(log)

    as_user(ANNA, lambda: model.parent.mkdir(parents=True))
    as_user(ANNA, state.mkdir)
    as_user(BERT, lend)
    as_user(ANNA, forge)
    checked = shared.run(BERT, "check", *NAMED)
    assert (checked.code, checked.out.count("verified ")) == (3, 0), checked.out + checked.err
    assert shared.run(BERT, "path", "model", "--offline", *NAMED).code != 0
    done = shared.run(BERT, "sync", *NAMED)
    if whose == "hers":
        assert done.code == 4
        assert f"({place})" in done.err
        assert model.read_bytes() != CONTENT
    else:
        assert done.code == 0, done.err
        assert model.read_bytes() == CONTENT
        assert "others may write to" in checked.err


@pytest.mark.shows("S17", "S20")
def test_a_team_moves_its_large_files_to_one_folder(shared: Shared) -> None:
    """Each out of their own repository, into the folder that both name; the files of both come back."""
    store = shared.above / "store"
    store.mkdir()
    os.chown(store, ANNA, TEAM)
    store.chmod(0o2775)
    for user in (ANNA, BERT):
        work = shared.home(user) / "work"
        work.mkdir()
        (work / f"{user}.bin").write_bytes(CONTENT)
        subprocess.run(["git", "init", "-q"], cwd=work, check=True)
        subprocess.run(["git", "add", "-A"], cwd=work, check=True)
        subprocess.run(["chown", "-R", f"{user}:{user}", str(work)], check=True)
        moved = shared.run_in(work, user, "clean", "0.05", ".", str(store), "-y", "--allow-dirty")
        assert moved.code == 0, moved.err
        assert not (work / f"{user}.bin").exists()
    for user in (ANNA, BERT):
        work = shared.home(user) / "work"
        restored = shared.run_in(work, user, "restore", "--all", "--external-assets-dir", str(store))
        assert restored.code == 0, restored.err
        assert (work / f"{user}.bin").read_bytes() == CONTENT
