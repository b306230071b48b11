"""The text that stays in place of a file."""

from __future__ import annotations

import shlex
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.digest import Checksum
from grym_fetch.core.paths import check_local_path
from grym_fetch.repo.placeholder import MAX_BYTES, Placeholder, asset_id, distinct_id

PLACEHOLDER = Placeholder(
    id="base",
    original_path="models/base.ckpt",
    storage_path="base.ckpt",
    size=1_500_000,
    checksum=Checksum.of(b"content"),
    moved_on="2026-03-09T12:00:00.000Z",
)


def safe_paths() -> st.SearchStrategy[str]:
    """Allowed paths, in their normal form."""

    def is_safe(path: str) -> bool:
        try:
            return check_local_path(path) == path
        except ValueError:
            return False

    # Nearly all of these are allowed; of any text, four of five are not, and Hypothesis gives up on a few more.
    characters = st.characters(exclude_categories=["C"], exclude_characters='<>:"|?*\\/')
    paths = st.lists(st.text(characters, min_size=1, max_size=9), min_size=1, max_size=3).map("/".join)
    return paths.map(lambda path: unicodedata.normalize("NFC", path)).filter(is_safe)


@given(safe_paths(), safe_paths(), st.integers(0, 2**63 - 1))
def test_what_is_written_is_read_back(original: str, stored: str, size: int) -> None:
    """Any placeholder reads back as it was, whatever characters its paths have."""
    placeholder = replace(PLACEHOLDER, original_path=original, storage_path=stored, size=size)
    assert Placeholder.decode(placeholder.encode()) == placeholder


def test_a_person_can_read_it() -> None:
    """The text says what happened, what was there, and what to type; it names a folder other than the default."""
    text = replace(PLACEHOLDER, external_dir="../my assets").encode().decode()
    assert "was moved out of this repository" in text
    assert f"sha256: {PLACEHOLDER.checksum.hexdigest}" in text
    assert "grym-fetch restore --external-assets-dir '../my assets' models/base.ckpt" in text


def test_a_name_is_not_taken_for_an_option() -> None:
    """The command brings back the file, whatever its name looks like."""
    text = replace(PLACEHOLDER, original_path="-lead it's.bin", external_dir="../-out").encode().decode()
    command = shlex.split(text.rstrip("\n").rpartition("\n")[2])
    assert command == ["grym-fetch", "restore", "--external-assets-dir", "../-out", "--", "-lead it's.bin"]


def test_line_ends_of_another_system_do_no_harm() -> None:
    """A placeholder checked out by git with CRLF is still one."""
    assert Placeholder.decode(PLACEHOLDER.encode().replace(b"\n", b"\r\n")) == PLACEHOLDER


GOOD = PLACEHOLDER.encode()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "does not begin"),
        (b"\xff\xfe", "UTF-8"),
        (b"something else\n", "does not begin"),
        (GOOD.replace(b"grym-fetch", b"grim-fetch", 1), "does not begin"),
        (GOOD[:60], "has no line"),
        (GOOD.replace(b"base.ckpt\n", b"base\r.ckpt\n", 1), "carriage return"),
        (GOOD.replace(b"1500000", b"many"), "not a number of bytes"),
        (GOOD.replace(b"1500000", b"-1"), "not a number of bytes"),
        (GOOD.replace(b"sha256: ", b"sha256: x"), "hex digits"),
        (GOOD + b"x" * MAX_BYTES, "too long"),
    ],
    ids=["empty", "binary", "other", "other head", "cut off", "carriage return", "size", "negative", "digest", "long"],
)
@pytest.mark.shows("S11")
def test_what_is_no_placeholder_is_refused(data: bytes, complaint: str) -> None:
    """A file with only the name of a placeholder is not taken for one, however good the rest of it looks."""
    with pytest.raises(ValueError, match=complaint):
        Placeholder.decode(data)


def test_ids_come_from_file_names() -> None:
    """An id is the file's name in plain characters, with as many of its folders as make it distinct."""
    assert asset_id("models/AudioLDM S (full).ckpt") == "audioldm-s-full"
    assert asset_id("models/.bin") == "bin"
    assert asset_id("models/---.bin") == "asset"
    assert distinct_id("a/base/model.bin", {"model"}) == "base-model"
    assert distinct_id("model.bin", {"model", "model-2"}) == "model-3"
