"""Events: plain values, and one JSON form that readers can rely on."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core import events
from grym_fetch.core.events import Event

NOW = 1_700_000_000.123456789

SAMPLES: list[Event] = [
    events.RunStarted(time=NOW, assets=2, bytes=3000),
    events.AssetPlanned(time=NOW, asset="a", size=None, resumed_bytes=0),
    events.AssetReused(time=NOW, asset="a", path="a.bin"),
    events.ProgressMade(time=NOW, asset="a", bytes=10, total=None, rate=0.0),
    events.RetryScheduled(time=NOW, asset="a", url="https://h/x", attempt=1, delay=0.5, reason="ended early"),
    events.MirrorSwitched(
        time=NOW, asset="a", from_="https://h/x", to="https://m/x", reason="refused", number=2, count=2
    ),
    events.AssetRestarted(time=NOW, asset="a", discarded=10, reason="changed"),
    events.AssetVerifying(time=NOW, asset="a", bytes=5, total=10),
    events.AssetVerified(
        time=NOW, asset="a", path="a.bin", checksum="0" * 64, size=10, seconds=1.0, downloaded_bytes=10
    ),
    events.AssetFailed(time=NOW, asset="a", error="DiskFull", message="no space left"),
    events.AssetWaiting(time=NOW, asset="a", holder="process 7"),
    events.RunFinished(time=NOW, verified=1, reused=0, failed=1, downloaded_bytes=10, seconds=1.0),
    events.AssetDamaged(time=NOW, asset="a", path="a.bin", pieces=3, bad=1, bytes=1000),
    events.AssetRepaired(time=NOW, asset="a", pieces=3, bad=1, fetched=1, saved_bytes=2000),
]
OF_THE_RUN = {"run_started", "run_finished"}


def test_every_kind_of_event_is_here() -> None:
    """These tests know every event there is."""
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)}
    assert {type(sample) for sample in SAMPLES} == kinds - {Event}


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: event.type)
def test_what_every_json_form_has(event: Event) -> None:
    """Each event gives its version, type and time first, and its asset if it concerns one."""
    record = event.as_json()
    assert list(record)[:3] == ["v", "type", "time"]
    assert record["v"] == events.FORMAT_VERSION == 1
    assert record["type"] == event.type
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", event.type)
    assert ("asset" in record) == (event.type not in OF_THE_RUN)
    assert record["time"] == 1_700_000_000.123
    assert json.loads(json.dumps(record)).keys() == record.keys()


def test_types_are_told_apart() -> None:
    """No two kinds of event share a type."""
    types = [sample.type for sample in SAMPLES]
    assert len(set(types)) == len(types)


@given(st.floats(0, 1e11))
def test_time_has_at_most_three_decimals(time: float) -> None:
    """The time of an event is written to the millisecond."""
    text = json.dumps(events.AssetReused(time=time, asset="a", path="p").as_json()["time"])
    assert re.fullmatch(r"[0-9]+(\.[0-9]{1,3})?", text)
    assert abs(float(text) - time) <= 0.00051


def test_the_json_form_in_full() -> None:
    """Keys are the fields, and ``from_`` is written ``from``."""
    assert SAMPLES[5].as_json() == {
        "v": 1,
        "type": "mirror_switched",
        "time": 1_700_000_000.123,
        "asset": "a",
        "from": "https://h/x",
        "to": "https://m/x",
        "reason": "refused",
        "number": 2,
        "count": 2,
    }


def test_unknown_is_null_not_absent() -> None:
    """An unknown value is null, so that a reader always finds every key of a type."""
    record = SAMPLES[3].as_json()
    assert (record["total"], record["eta"]) == (None, None)
    assert SAMPLES[1].as_json()["size"] is None


def test_unverified_is_said_only_where_it_is_true() -> None:
    """A verified asset says nothing about being unverified."""
    verified = SAMPLES[8]
    assert isinstance(verified, events.AssetVerified)
    assert "unverified" not in verified.as_json()
    assert dataclasses.replace(verified, unverified=True).as_json()["unverified"] is True


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: event.type)
def test_events_are_values(event: Event) -> None:
    """An event cannot be changed, and equals another with the same fields."""
    assert dataclasses.replace(event) == event
    assert hash(dataclasses.replace(event)) == hash(event)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.time = 0.0  # type: ignore[misc]


def test_events_travel_between_processes() -> None:
    """What arrives is what was sent, with its type and all values."""
    assert pickle.loads(pickle.dumps(SAMPLES)) == SAMPLES
    assert copy.copy(SAMPLES[0]) == SAMPLES[0]
