"""Who sent wrong bytes is remembered for a person, and for nothing else."""

from __future__ import annotations

from pathlib import Path

from grym_fetch.disk.state import StateFolder
from grym_fetch.disk.wrong_origins import LOG, MAX_LOG_BYTES, WrongOrigins

URL = "https://mirror.example/a.bin"


def test_who_is_remembered(tmp_path: Path) -> None:
    """Another process finds each address once, at its last time; a damaged line hides no other."""
    state = StateFolder(tmp_path)
    assert WrongOrigins(state).find() == {}
    WrongOrigins(state).record("a", [], 1.0)
    assert not state.own.exists()
    WrongOrigins(state).record("a", [URL], 100.0)
    with (state.own / LOG).open("ab") as log:
        log.write(b"torn\n")
    WrongOrigins(state).record("b", [URL], 150.0)
    WrongOrigins(state).record("a", [URL], 200.5)
    assert WrongOrigins(state).find() == {("a", URL): 200.0, ("b", URL): 150.0}


def test_it_stops_growing(tmp_path: Path) -> None:
    """At its limit, nothing more is written; without an assets folder nothing at all."""
    state = StateFolder(tmp_path)
    for number in range(40):
        WrongOrigins(state).record("a", [URL + "x" * 4000], float(number))
    assert (state.own / LOG).stat().st_size <= MAX_LOG_BYTES
    gone = StateFolder(tmp_path / "gone")
    WrongOrigins(gone).record("a", [URL], 1.0)
    assert WrongOrigins(gone).find() == {}
