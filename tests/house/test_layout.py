"""Where a test is found: a module's name tells which tests are about it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import tests.support
from grym_fetch._version import __version__
from tests.house.hygiene import faults
from tests.house.test_documentation import files_of_the_repository

ROOT = Path(__file__).parents[2]
PACKAGE, TESTS = ROOT / "grym_fetch", ROOT / "tests"

# Modules without a test module of their own name, and the one that tests each instead.
ELSEWHERE = {
    "transfer/posting": "transfer/test_lfs",
    "store/stamps": "store/test_machine_store",
    "engine/adopting": "transfer/test_taking",
    "runtime/process_start": "runtime/test_system",
    "runtime/system_darwin": "runtime/test_system",
    "runtime/system_linux": "runtime/test_system",
    "runtime/system_posix": "runtime/test_system",
    "archive/tar": "archive/test_costly_archives",
    "archive/tree": "archive/test_unpack",
    "cluster/protocol": "cluster/test_driver",
    "cluster/run": "cluster/test_dask",
    "cli/demo_report": "cli/test_demo",
    "cli/demo_stage": "cli/test_demo",
    "cli/demo_story": "cli/test_demo",
    "cli/doctor": "end_to_end/test_doctor",
    "cli/adopting": "transfer/test_taking",
    "cli/adding": "end_to_end/test_editing",
    "cli/clean": "end_to_end/test_repository",
    "cli/identify": "end_to_end/test_repository",
    "cli/inspection": "end_to_end/test_command_line",
    "cli/logs": "cli/test_foreign_text",
    "cli/main": "end_to_end/test_command_line",
    "cli/metrics": "cli/test_reporting",
    "cli/measured": "end_to_end/test_editing",
    "cli/new_manifest": "end_to_end/test_editing",
    "cli/options": "end_to_end/test_command_line",
    "cli/pinning": "end_to_end/test_editing",
    "cli/removing": "end_to_end/test_editing",
    "cli/repository_places": "end_to_end/test_repository",
    "cli/repository_text": "end_to_end/test_repository",
    "cli/restore": "end_to_end/test_repository",
    "cli/runner": "end_to_end/test_interruptions",
    "cli/settings": "end_to_end/test_command_line",
    "cli/setup": "end_to_end/test_setup",
    "cli/tables": "cli/test_screens",
    "cli/sync": "end_to_end/test_command_line",
    "cli/lists": "project/test_lists",
    "cli/updating": "project/test_updating",
    "core/digest": "core/test_checksum",
    "core/validation": "test_settings",
    "core/world": "contract/test_stage_contract",
    "disk/state": "disk/test_shared_folders",
    "display/live": "display/test_views",
    "display/plain": "display/test_views",
    "display/stream": "display/test_choice",
    "engine/engine": "test_manager",
    "engine/protocol": "testing/test_mock",
    "engine/reports": "test_manager",
    "errors": "core/test_errors",
    "events": "core/test_events",
    "manifest": "house/test_public_names",
    "net/settings": "net/test_client",
    "net/states": "net/test_wire",
    "net/tls": "net/test_client",
    "project/choices": "test_policy_variables",
    "project/diagnosis": "end_to_end/test_doctor",
    "project/editing": "project/test_entries",
    "repo/errors": "repo/test_clean",
    "repo/git": "repo/test_history",
    "repo/moving": "repo/test_clean",
    "repo/places": "repo/test_clean",
    "repo/record": "repo/test_clean",
    "repo/tree": "repo/test_identify",
    "reports": "house/test_public_names",
    "runtime/loop_owner": "test_manager_life",
    "runtime/loop_thread": "test_blocking",
    "testing/answers": "testing/test_server",
    "testing/content": "testing/test_server",
    "testing/faults": "testing/test_server",
    "testing/resource_faults": "testing/test_server",
    "testing/stats": "testing/test_server",
    "testing/wire": "testing/test_server",
    "transfer/context": "transfer/test_fetcher",
    "transfer/locking": "disk/test_locks",
    "transfer/outcome": "transfer/test_response",
    "transfer/result": "transfer/test_fetcher",
    "transfer/small_fetcher": "transfer/test_small_files",
    "transfer/state": "transfer/test_response",
    "transfer/transfer": "regressions/test_servers",
}


def modules() -> list[str]:
    """Each module of the package by its path: ``disk/store``. A version needs no test."""
    found = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return sorted(path.as_posix() for path in found if path.name not in ("__init__", "__main__", "_version"))


def test_each_module_has_its_tests() -> None:
    """A module's tests are in the module of the same name in the room of the same name, or where this file says."""
    for module in modules():
        room, _, name = module.rpartition("/")
        own = TESTS / room / f"test_{name}.py"
        assert own.exists() or module in ELSEWHERE, f"make {own.relative_to(ROOT)}, or say in ELSEWHERE who tests it"


def test_the_list_of_other_places_is_true() -> None:
    """Every place it names exists."""
    assert ELSEWHERE.keys() - set(modules()) == set()
    assert [place for place in ELSEWHERE.values() if not (TESTS / f"{place}.py").exists()] == []


def test_what_tests_share_is_said() -> None:
    """The docstring of `tests.support` says what each of its modules is for."""
    there = {path.stem for path in (TESTS / "support").iterdir() if not path.name.startswith(("_", ".", "test_"))}
    assert there - set(re.findall(r"`(\w+)`", str(tests.support.__doc__))) == set()


def test_no_property_makes_terms_of_its_own() -> None:
    """How long an example may take and which checks count is decided once, in `tests.support.properties`."""
    own_terms = re.compile(r"settings\(.*(deadline|suppress_health_check|database)=")
    here = {TESTS / "support/properties.py", Path(__file__)}
    wrong = [path for path in TESTS.rglob("*.py") if path not in here and own_terms.search(path.read_text("utf-8"))]
    assert [str(path.relative_to(ROOT)) for path in wrong] == []


def test_no_test_is_in_a_hurry() -> None:
    """What only keeps a test from hanging is at least a minute: the machine may be busy with others."""
    waits = re.compile(
        r"(?:asyncio\.timeout|mark\.timeout|\.wait|thread\.join|\.result|communicate|subprocess\.run|wait_for|to_thread)"
        r"\((?:[^()\n]*[ =])?([1-9]|[1-5]\d)(?:\.\d+)?\)"
    )
    kept = {
        "support/nginx.py": "1",  # then it is killed, like the next
        "support/ray_head.py": "20",
    }
    found = {
        (path.relative_to(TESTS).as_posix(), seconds)
        for path in TESTS.rglob("*.py")
        for seconds in waits.findall(path.read_text("utf-8"))
    }
    assert found == set(kept.items())


def test_every_file_is_tidy() -> None:
    """No file has trailing spaces, a merge marker or a forgotten breakpoint."""
    pictures = {".png", ".gif", ".ico"}
    texts = (path for path in files_of_the_repository() if path.suffix not in pictures and path.is_file())
    assert {str(path.relative_to(ROOT)): wrong for path in texts if (wrong := faults(path.read_bytes()))} == {}


@pytest.mark.parametrize(
    "data",
    [b"a \n", b"a\r\n", b"a", b"a\n\n", b"x\n<<<<<<< ours\n", b"x\n>>>>>>> theirs\n", b"if x:\n    breakpoint()\n"],
)
def test_what_is_untidy_is_seen(data: bytes) -> None:
    """Every fault that a pre-commit hook looks for is found."""
    assert faults(data) != []
    assert faults(b"tidy\n") == faults(b"") == []


def test_there_is_one_version() -> None:
    """The package and its metadata give the same version."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert told == __version__
