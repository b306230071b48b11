"""The list of guards fits the program, and taking one out is noticed; `make guards` does it for all of them."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.house import guards as module
from tests.house.guards import ROOT, Copy, Guard, covered, guards, without
from tests.house.reliability import all_rows, shown, unguarded


def test_the_list_fits() -> None:
    """Each guard is in the program exactly once; each test exists, and is marked with one of its rows."""
    assert {guard.name: wrong for guard in guards() if (wrong := misfits(guard))} == {}


def misfits(guard: Guard) -> list[str]:
    """What is wrong with an entry of the list."""
    found = []
    try:
        without(guard, (ROOT / guard.file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found.append(str(error))
    if not guard.tests:
        found.append("no tests")
    found += [f"no guard {name}" for name in guard.behind if name not in {each.name for each in guards()}]
    for test in guard.tests:
        place, _, name = test.partition("::")
        if not hasattr(importlib.import_module(place.removesuffix(".py").replace("/", ".")), name):
            found.append(f"no test {test}")
        elif not any(test.removeprefix("tests/") in shown()[row] for row in guard.rows):
            found.append(f"shows none of these rows: {test}")
    return found


def test_the_rows_exist() -> None:
    """Every covered row is a promised one."""
    assert set(covered()) <= {row.id for row in all_rows()}


def test_a_guard_that_is_not_there_is_an_error() -> None:
    """Whoever changes the program must change the list."""
    guard = Guard("g", ("S1",), "a.py", "if x:", "if True:", ())
    assert without(guard, "if x:\n    y") == "if True:\n    y"
    for text in ("", "if x:\nif x:\n"):
        with pytest.raises(ValueError, match="not once"):
            without(guard, text)


@pytest.mark.sweep
def test_what_passes_without_the_guard_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two tests notices, and is marked with one of two rows; afterwards the file is unchanged."""
    monkeypatch.setattr(module, "TIMEOUT_S", 60)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = shows(*rows)\n")
    (tmp_path / "program.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "test_it.py").write_text(
        "import pytest\nfrom program import double\n"
        "@pytest.mark.shows('N1')\ndef test_sharp(): assert double(3) == 6\n"
        "@pytest.mark.shows('N2')\ndef test_blunt(): assert double(0) == 0\n"
    )
    tests = ("test_it.py::test_sharp", "test_it.py::test_blunt")
    guard = Guard("g", ("N1", "N2"), "program.py", "2 * x", "x", tests)
    with Copy(tmp_path) as copy:
        assert copy.unnoticed(guard) == ["test_it.py::test_blunt", "N2"]
        assert copy.failures(tests) == {}
    assert "2 * x" in (tmp_path / "program.py").read_text()


@pytest.mark.sweep
def test_of_many_cases_the_first_that_fails_is_enough(tmp_path: Path) -> None:
    """The others are skipped, except those that show another row, and those of other tests."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = shows(*rows)\n")
    (tmp_path / "test_it.py").write_text(
        "import pathlib, pytest\n"
        "@pytest.mark.parametrize('n', [0, 1, 2, pytest.param(3, marks=pytest.mark.shows('N2')), 4])\n"
        "@pytest.mark.shows('N1')\n"
        "def test_many(n):\n"
        "    pathlib.Path(f'ran-{n}').touch()\n"
        "    assert n == 0\n"
        "def test_other(): assert False\n"
    )
    with Copy(tmp_path) as copy:
        failed = copy.failures(("test_it.py::test_many", "test_it.py::test_other"))
    assert failed == {
        "test_it.py::test_many[1]": ["N1"],
        "test_it.py::test_many[3]": ["N1", "N2"],
        "test_it.py::test_other": [],
    }
    assert sorted(path.name for path in tmp_path.glob("ran-*")) == ["ran-0", "ran-1", "ran-3"]


def test_each_row_has_its_guard_or_says_why_not() -> None:
    """Each row without a guard has a reason, and every reason is for such a row."""
    rows = [row.id for row in all_rows() if row.why_untested is None]
    guarded, excused = set(covered()), set(unguarded())
    assert [row for row in rows if row not in guarded | excused] == []
    assert [row for row in sorted(excused) if row in guarded or row not in rows] == []
