"""Environment variables: how yes and no, speeds and numbers are read, and how an invalid one is refused."""

from __future__ import annotations

import dataclasses

import pytest

from grym_fetch import Settings
from grym_fetch.core.variables import VARIABLES, BadVariable, parse_flag, parse_rate, read_flag, settings_in

YES = ["1", "true", "TRUE", "yes", "Yes", "on", "y", "Y", "t", " 1 "]
NO = ["0", "false", "False", "no", "NO", "off", "n", "f", "\t0\n"]


@pytest.mark.parametrize(("text", "meaning"), [*((yes, True) for yes in YES), *((no, False) for no in NO)])
def test_yes_and_no(text: str, meaning: bool) -> None:
    """Each usual word is understood, in any case, with or without surrounding spaces."""
    assert parse_flag(text) is meaning
    assert read_flag({"GRYM_FETCH_MINIMAL": text}, "GRYM_FETCH_MINIMAL") is meaning


@pytest.mark.parametrize("text", ["2", "maybe", "yes please", "oui", "-1", "tru", "1\x1b[2J"])
def test_neither_yes_nor_no(text: str) -> None:
    """Anything else is refused on one line with the variable's name: nobody may take it for a no, or a yes."""
    with pytest.raises(BadVariable) as caught:
        read_flag({"GRYM_FETCH_OFFLINE": text}, "GRYM_FETCH_OFFLINE")
    assert isinstance(caught.value, ValueError)
    assert caught.value.name == "GRYM_FETCH_OFFLINE"
    assert str(caught.value).startswith("the environment variable GRYM_FETCH_OFFLINE: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("environ", [{}, {"GRYM_FETCH_OFFLINE": ""}, {"GRYM_FETCH_OFFLINE": "  "}])
def test_an_empty_variable_is_not_set(environ: dict[str, str]) -> None:
    """An empty variable counts as not set, as on the command line."""
    assert read_flag(environ, "GRYM_FETCH_OFFLINE") is False
    assert dict(settings_in(environ)) == {}


def test_every_setting_has_its_variable() -> None:
    """Each setting but the segment sizes, which are for tests, has a variable; each variable gives a real setting."""
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert sorted(variable.setting for variable in VARIABLES) == sorted(fields - {"sizes"})


def test_the_words_are_turned_round_where_the_setting_is() -> None:
    """``GRYM_FETCH_NO_PRIVATE_ADDRESSES=1`` forbids what the setting allows."""
    forbidden = dict(settings_in({"GRYM_FETCH_NO_PRIVATE_ADDRESSES": "1"}))
    allowed = dict(settings_in({"GRYM_FETCH_NO_PRIVATE_ADDRESSES": "0"}))
    assert (forbidden, allowed) == ({"allow_private_addresses": False}, {"allow_private_addresses": True})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PARALLEL", "0"), ("PARALLEL", "-3"), ("PARALLEL", "many"), ("PARALLEL", "1.5"), ("MAX_PER_HOST", "0"),
        ("MIRRORS", "togehter"), ("LIMIT_RATE", "0"), ("LIMIT_RATE", "fast"), ("RETRIES", "-1"),
        ("STALL_TIMEOUT", "0"), ("CONNECT_TIMEOUT", "nan"), ("LOCK_TIMEOUT", "-1"), ("LOCK_TIMEOUT", "inf"),
        ("PATIENCE", "-1"), ("PATIENCE", "long"),
        ("OFFLINE", "maybe"), ("NO_PRIVATE_ADDRESSES", "ja"), ("ALLOW_STALE", "2"), ("ALLOW_UNPINNED", "?"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(name: str, text: str) -> None:
    """An unreadable value is refused by name; a variable whose setting is given elsewhere is not looked at."""
    environ = {f"GRYM_FETCH_{name}": text}
    with pytest.raises(BadVariable, match=f"GRYM_FETCH_{name}: "):
        dict(settings_in(environ))
    given = {variable.setting for variable in VARIABLES if variable.name == f"GRYM_FETCH_{name}"}
    assert dict(settings_in(environ, without=given)) == {}


@pytest.mark.parametrize(
    ("text", "rate"), [("500K", 512_000), ("10m", 10 * 2**20), ("1.5MiB/s", 1.5 * 2**20), ("7", 7), ("1 GB", 2**30)]
)
def test_speeds(text: str, rate: float) -> None:
    """Bytes per second, in units of 1024."""
    assert parse_rate(text) == rate
