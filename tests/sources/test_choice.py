"""Which files of a repository a short address means, and the nearest match for one that does not exist."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.errors import UnknownSource
from grym_fetch.sources.choice import Chosen, choose_paths, is_pattern, numbered, quoted, unquoted

PATHS = ["README.md", "config.json", "model.safetensors", "onnx/model.onnx", "onnx/fp16/model.onnx", "a b[1].txt"]


@pytest.mark.parametrize(
    ("wanted", "chosen", "is_whole"),
    [
        ("", PATHS, True),
        ("config.json", ["config.json"], False),
        ("onnx/model.onnx", ["onnx/model.onnx"], False),
        ("onnx", ["onnx/model.onnx", "onnx/fp16/model.onnx"], True),
        ("onnx/", ["onnx/model.onnx", "onnx/fp16/model.onnx"], True),
        ("*.json", ["config.json"], True),
        ("*.onnx", None, True),
        ("**/*.onnx", ["onnx/model.onnx", "onnx/fp16/model.onnx"], True),
        ("**", PATHS, True),
        ("onnx/**/model.onnx", ["onnx/model.onnx", "onnx/fp16/model.onnx"], True),
        ("onnx/*", ["onnx/model.onnx"], True),
        ("?onfig.json", ["config.json"], True),
        ("[A-Z]*", ["README.md"], True),
        ("a%20b%5B1%5D.txt", ["a b[1].txt"], False),
        ("a%20*.txt", ["a b[1].txt"], True),
        ("*%5b1%5D.*", ["a b[1].txt"], True),
        ("%2A*.json", None, True),
    ],
)
def test_what_is_meant(wanted: str, chosen: list[str] | None, is_whole: bool) -> None:
    """One file, a folder, or a pattern whose star stays within a folder."""
    if chosen is None:
        with pytest.raises(UnknownSource, match="no file matches"):
            choose_paths(wanted, PATHS, "hf://a/b")
    else:
        assert choose_paths(wanted, PATHS, "hf://a/b") == Chosen(tuple(chosen), is_whole)


@pytest.mark.parametrize(
    ("wanted", "near"),
    [("confg.json", "config.json"), ("Model.SafeTensors", "model.safetensors"), ("onx/model.onnx", "onnx/model.onnx")],
)
def test_what_is_not_there_has_a_neighbour(wanted: str, near: str) -> None:
    """A misspelt file is answered with the nearest existing one."""
    with pytest.raises(UnknownSource, match="there is no file") as caught:
        choose_paths(wanted, PATHS, "hf://a/b")
    assert caught.value.suggestions[0] == near


def test_nothing_at_all() -> None:
    """An empty repository has no files to choose from."""
    with pytest.raises(UnknownSource, match="no files"):
        choose_paths("", [], "hf://a/b")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_quoted_path_means_itself(path: str) -> None:
    """Whatever a path contains, its quoted form is not a pattern and reads back the same."""
    assert not is_pattern(quoted(path))
    assert unquoted(quoted(path)) == path


def test_no_pattern_takes_long() -> None:
    """Many stars cost no more than their number times the path's length; a search by trial would not end."""
    path = "/".join(["a"] * 500)
    with pytest.raises(UnknownSource):
        choose_paths("/".join(["**", "a"] * 50) + "/b", [path], "hf://a/b")


def test_repeated_names_get_numbers() -> None:
    """Also where a number is taken already; ten thousand of one name take no time to speak of."""
    assert numbered(["a", "a", "b", "a-2", "a"]) == ["a", "a-2", "b", "a-2-2", "a-3"]
    assert numbered(["a"] * 10_000)[-1] == "a-10000"
