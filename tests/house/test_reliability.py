"""The document on reliability is true: every fault and every bug has a test, or says why it has none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.house.reliability import BEGIN, DOCUMENT, SECURITY, all_rows, open_rows, promise_table, shown, tables

KNOWN = {row.id: row for row in all_rows()}


def test_every_row_is_proved_by_a_test_or_says_why_not() -> None:
    """A fault without a test is either not ours, with a reason, or on the list of what is still open."""
    unproved = {row.id for row in all_rows() if row.why_untested is None} - set(shown())
    assert unproved <= (open_rows() or set()), (
        "no test has the mark `shows` for these, and tests/house/reliability.toml does not say why"
    )


def test_a_row_with_a_reason_for_no_test_has_none() -> None:
    """A row that has got a test needs no reason for having none."""
    assert {row.id for row in all_rows() if row.why_untested is not None} & set(shown()) == set()


def test_every_mark_names_a_row() -> None:
    """A mark cannot name a row that no document has."""
    assert shown().keys() - KNOWN.keys() == set()


@pytest.mark.parametrize(("document", "made"), [(DOCUMENT, tables), (SECURITY, promise_table)])
def test_the_document_names_tests_that_exist(document: Path, made: Callable[[], str]) -> None:
    """Every test named in the document exists, and the text between them is that of the rows."""
    written = document.read_text(encoding="utf-8").partition(BEGIN)[2]
    if open_rows() is None or document == SECURITY:
        assert written == made(), "run `make reliability`"
    tests = {test for proofs in shown().values() for test in proofs}
    for line in written.splitlines():
        for place, names in re.findall(r"\]\((?:\.\./)?tests/([^)]+)\): ((?:`[^`]+`(?:, )?)+)", line):
            for name in re.findall(r"`([^`]+)`", names):
                assert f"{place}::{name}" in tests, "run `make reliability`"


def test_the_numbers_have_no_gaps() -> None:
    """No row is missing: within each letter they count from 1."""
    by_letter: dict[str, list[int]] = {}
    for row in KNOWN:
        by_letter.setdefault(row[0], []).append(int(row[1:]))
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in by_letter.values())
    assert {letter: len(numbers) for letter, numbers in by_letter.items()} == {
        "N": 25,
        "R": 34,
        "A": 31,
        "C": 18,
        "D": 23,
        "P": 21,
        "X": 12,
        "M": 18,
        "U": 10,
        "B": 65,
        "S": 23,
    }
