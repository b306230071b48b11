"""Which test proves what: reads ``reliability.toml`` and the tests' marks, and writes the tables of two documents.

``python -m tests.house.reliability`` brings ``docs/reliability.md`` and ``SECURITY.md`` up to date.

Rules: a test says what it proves with ``@pytest.mark.shows("N1")``, on itself, its class, its module, or on one of its
parameters. Marks are read from the imported modules, not by running or collecting anything.
"""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet

from tests.house.guards import covered

HERE = Path(__file__).parent
TESTS = HERE.parent
DOCUMENT = TESTS.parent / "docs" / "reliability.md"
SECURITY = TESTS.parent / "SECURITY.md"
BEGIN = "<!-- From here on written by `make reliability`. -->\n"

# --- What is promised ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One fault or bug: what happens, what follows and, if no test proves that, why not."""

    id: str
    what: str
    comes: str
    why_untested: str | None = None


@dataclass(frozen=True)
class Section:
    """The faults of one kind."""

    title: str
    rows: tuple[Row, ...]


@cache
def _data() -> dict[str, dict[str, Any]]:
    return tomllib.loads((HERE / "reliability.toml").read_text(encoding="utf-8"))


def _rows(table: str, reasons: str) -> tuple[Row, ...]:
    return tuple(
        Row(row, cells[0], cells[1], _data()[reasons].get(row))
        for row, cells in _data()[table].items()
        if isinstance(cells, list)
    )


def sections() -> list[Section]:
    """The faults, by kind."""
    data = _data()
    return [Section(str(data[name]["title"]), _rows(name, "uncovered")) for name in data if "title" in data[name]]


def bugs() -> tuple[Row, ...]:
    """The bugs of other tools; ``what`` is the project, ``comes`` what happened there."""
    return _rows("bugs", "unaffected")


def promises() -> tuple[Row, ...]:
    """The promises of SECURITY.md; ``what`` is a word for each, ``comes`` what is promised."""
    return _rows("promises", "uncovered")


def all_rows() -> list[Row]:
    """Faults, bugs and promises."""
    return [*(row for section in sections() for row in section.rows), *bugs(), *promises()]


def unguarded() -> dict[str, str]:
    """The rows without a guard to take out, each with the reason."""
    return dict(_data()["unguarded"])


def open_rows() -> set[str] | None:
    """Rows whose tests are still being written; None once the list is closed, and the document must be exact."""
    return set(_data()["open"]["rows"]) if "open" in _data() else None


# --- What is proved -----------------------------------------------------------------------------------------


def test_modules() -> Iterator[str]:
    """The dotted names of all test modules."""
    for path in sorted(TESTS.rglob("test_*.py")):
        yield ".".join(path.relative_to(TESTS.parent).with_suffix("").parts)


@cache
def shown() -> dict[str, frozenset[str]]:
    """The tests for each row that a mark names, as ``core/test_http.py::test_name``."""
    found: dict[str, set[str]] = {}
    for module_name in test_modules():
        module = importlib.import_module(module_name)
        place = module_name.removeprefix("tests.").replace(".", "/") + ".py"
        for name, marks in _tests_of(module):
            for row in _rows_of(marks):
                found.setdefault(row, set()).add(f"{place}::{name}")
    return {row: frozenset(tests) for row, tests in found.items()}


def _tests_of(module: object) -> Iterator[tuple[str, list[pytest.Mark]]]:
    """The name and all marks of each test in a module or class."""
    own = _marks(module)
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != getattr(module, "__module__", getattr(module, "__name__", None)):
            continue  # imported from elsewhere
        if name.startswith("test") and callable(value):
            yield name, own + _marks(value)
        elif name.startswith("Test") and isinstance(value, type):
            methods = list(_tests_of(value)) or [("", _marks(value))]
            yield from ((f"{name}::{method}".removesuffix("::"), own + marks) for method, marks in methods)


def _marks(value: object) -> list[pytest.Mark]:
    marks = getattr(value, "pytestmark", [])
    return [_plain(mark) for mark in (marks if isinstance(marks, list) else [marks])]


def _plain(mark: pytest.Mark | pytest.MarkDecorator) -> pytest.Mark:
    return mark.mark if isinstance(mark, pytest.MarkDecorator) else mark


def _rows_of(marks: Iterable[pytest.Mark]) -> Iterator[str]:
    for mark in marks:
        if mark.name == "shows":
            yield from mark.args
        elif mark.name == "parametrize":
            cases = mark.args[1] if len(mark.args) > 1 else mark.kwargs["argvalues"]
            for case in cases:
                if isinstance(case, ParameterSet):
                    yield from _rows_of(_plain(own) for own in case.marks)


# --- The document -------------------------------------------------------------------------------------------


def tables() -> str:
    """The generated part of the document: every fault and every bug, with the tests that prove it."""
    parts = []
    for section in sections():
        parts.append(f"\n### {section.title}\n\n| | What happens | What comes of it | Tests |\n|---|---|---|---|\n")
        parts += [f"| {r.id} | {r.what} | {r.comes or '–'} | {_proof(r)} |\n" for r in section.rows]
    parts.append("\n## Bugs of other tools\n\n")
    parts.append("Each happened to somebody. The tests try the same here.\n\n")
    parts.append("| | Where | What happened | Tests |\n|---|---|---|---|\n")
    parts += [f"| {r.id} | {r.what} | {r.comes} | {_proof(r)} |\n" for r in bugs()]
    parts.append("\n## Promises of SECURITY\n\nThe tests of what [SECURITY.md](../SECURITY.md) promises.\n\n")
    parts.append("| | What is promised | Tests |\n|---|---|---|\n")
    parts += [f"| {r.id} | {r.what} | {_proof(r)} |\n" for r in promises()]
    parts.append("\n## Guards that are taken out\n\n")
    parts.append("`make guards` takes out what these rows, and these promises of SECURITY.md, rest on:\n")
    parts.append(f"{', '.join(sorted(covered(), key=_in_order))}.\n")
    if unguarded():
        parts.append(
            "\nNothing is taken out for these rows; their tests run all the same:\n\n| rows | why |\n|---|---|\n"
        )
        reasons = sorted(unguarded().items(), key=lambda item: _in_order(item[0]))
        for why in dict.fromkeys(why for _, why in reasons):
            parts.append(f"| {', '.join(row for row, each in reasons if each == why)} | {why} |\n")
    return "".join(parts)


def _in_order(row: str) -> tuple[str, int]:
    return row[0], int(row[1:])


def promise_table() -> str:
    """The generated part of SECURITY.md."""
    return "\n| | |\n|---|---|\n" + "".join(f"| {r.id} | **{r.what}.** {r.comes} |\n" for r in promises())


def _proof(row: Row) -> str:
    if row.why_untested is not None:
        return f"none: {row.why_untested}"
    by_place: dict[str, list[str]] = {}
    for test in sorted(shown().get(row.id, ())):
        place, _, name = test.partition("::")
        by_place.setdefault(place, []).append(name)
    lines = [f"[{place}](../tests/{place}): " + ", ".join(f"`{n}`" for n in names) for place, names in by_place.items()]
    return "<br>".join(lines) or "open"


def write() -> None:
    """Bring the documents up to date."""
    for document, made in ((DOCUMENT, tables()), (SECURITY, promise_table())):
        head, _, _ = document.read_text(encoding="utf-8").partition(BEGIN)
        document.write_text(head + BEGIN + made, encoding="utf-8")


if __name__ == "__main__":
    write()
