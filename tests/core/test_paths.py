"""Local paths: safe under both POSIX and Windows rules, and distinct on every file system."""

from __future__ import annotations

import ntpath
import re
import time
import unicodedata
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core import paths
from grym_fetch.core.paths import check_local_path, collision_key, find_collisions

NEVER = re.compile(r"(?!)")


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "model.bin",
        "models/audioldm/audioldm-s-full-v2.ckpt",
        ".hidden/file",
        "-dash/--file",
        "a..b/...c",
        "with space/and (brackets) [1]/100%.bin",
        "console/common.bin",
        "com/lpt/com10",
        "nullable",
        "minimal-set/a",
        "models/minimal/a",
        "models/.grym-fetch/a",
        "models/asset-manifest.json",
        ".github/a.git/x.git~1",
        ".gitignore",
        "Größe/模型.bin",
        "v1%2e0.bin",
        "x" * 240,
        "/".join(["y" * 127] * 8),
    ],
)
@pytest.mark.shows("M1")
def test_accepts_what_is_safe_everywhere(path: str) -> None:
    """A plain relative path is accepted unchanged."""
    assert check_local_path(path) == path


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("", "is empty"),
        ("/", "is absolute"),
        ("/etc/passwd", "is absolute"),
        ("//srv/share", "is absolute"),
        ("..", r"the part \.\."),
        ("../a", r"the part \.\."),
        ("a/../b", r"the part \.\."),
        ("a/..", r"the part \.\."),
        (".", r"the part \.;"),
        ("./a", r"the part \.;"),
        ("a/./b", r"the part \.;"),
        ("%2e%2e/a", "the part %2e%2e"),
        ("a/%2E./b", r"the part %2E\."),
        ("a%2fb", "%2f, an encoded separator"),
        ("a%5Cb", "%5C, an encoded separator"),
        ("a%00", "%00, an encoded separator"),
        ("~", "starts with ~"),
        ("~/a", "starts with ~"),
        ("~root/a", "starts with ~"),
        ("C:", "drive letter"),
        ("C:x", "drive letter"),
        ("c:/x", "drive letter"),
        ("C:\\x", "drive letter"),
        ("\\\\srv\\share", "backslash"),
        ("\\foo", "backslash"),
        ("a/b\\c", "backslash"),
        ("..\\a", "backslash"),
        ("a//b", "empty part"),
        ("a/", "empty part"),
        ("CON", "a device on Windows"),
        ("con", "a device on Windows"),
        ("models/nul.txt", "a device on Windows"),
        ("NUL.tar.gz", "a device on Windows"),
        ("aux/a", "a device on Windows"),
        ("prn .txt", "a device on Windows"),
        ("COM0", "a device on Windows"),
        ("com9.bin", "a device on Windows"),
        ("COM¹", "a device on Windows"),
        ("lpt³.x", "a device on Windows"),
        ("LPT5", "a device on Windows"),
        ("CONIN$", "a device on Windows"),
        ("conout$.a", "a device on Windows"),
        ("a.", "ends in a dot or a space"),
        ("a /b", "ends in a dot or a space"),
        ("...", "ends in a dot or a space"),
        (" ", "ends in a dot or a space"),
        ("file:stream", "the character :"),
        ("a<b", "the character <"),
        ("a>b", "the character >"),
        ('a"b', 'the character "'),
        ("a|b", r"the character \|"),
        ("a?b", r"the character \?"),
        ("a*b", r"the character \*"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a\x7fb", "control character"),
        ("ä\x85b", "control character"),
        ("a\u202eb", r"invisible format character \(\\u202e\)"),
        ("a\u200bb", "invisible format character"),
        ("a\u2028b", "line separator"),
        ("a\ud800b", "half of a surrogate pair"),
        ("x" * 241, "part of 241 bytes"),
        ("ä" * 121, "part of 242 bytes"),
        ("/".join(["y" * 127] * 8) + "z", None),
        ("/".join(["y" * 127] * 8) + "/z", "is 1025 bytes long; at most 1024"),
        (".grym-fetch", "its own state"),
        (".grym-fetch/a", "its own state"),
        (".Grym-FETCH/a", "its own state"),
        ("minimal", "small stand-ins"),
        ("minimal/a", "small stand-ins"),
        ("Minimal/a", "small stand-ins"),
        ("asset-manifest.json", "record of moved files"),
        (".git", "git takes for its own"),
        ("a/.git/hooks/pre-commit", "git takes for its own"),
        (".GIT/config", "git takes for its own"),
        ("a/.gIt", "git takes for its own"),
        ("git~1/config", "git takes for its own"),
        ("GIT~2", "git takes for its own"),
        (".ｇｉｔ/config", "git takes for its own"),
        (".git./config", "ends in a dot or a space"),
        (".git /config", "ends in a dot or a space"),
        (".git::$INDEX_ALLOCATION/config", "the character :"),
        ("git~1:x", "the character :"),
        (".git\\config", "backslash"),
        (".g\u200cit/config", "invisible format character"),
        ("\ufeff.git/config", "invisible format character"),
        (".gi\u206at", "invisible format character"),
    ],
)
@pytest.mark.shows("M1", "M2", "M3", "M5", "D10", "B62", "S5", "S17")
def test_refuses_what_some_system_takes_for_something_else(path: str, complaint: str | None) -> None:
    """Each path is refused on every system alike, with the reason."""
    if complaint is None:
        assert check_local_path(path) == path
        return
    with pytest.raises(ValueError, match=complaint):
        check_local_path(path)


@pytest.mark.shows("M4")
def test_returns_normal_form_c() -> None:
    """A path typed on a Mac names the same file as one typed elsewhere."""
    composed = "mod\u00e8le/\u00fc.bin"
    assert check_local_path(unicodedata.normalize("NFD", composed)) == composed


@pytest.mark.shows("M2")
def test_the_path_is_judged_as_it_will_be_used() -> None:
    """A character whose normal form is another character is judged as that one."""
    assert check_local_path("\u212aelvin") == "Kelvin"
    assert [c.why for c in find_collisions(["\u212a", "k"])] != []


words = st.sampled_from(["a", "B7", "__", "xcon", "con", "Com1", "lpt9", "nul", "aux", "minimal", "asset", "grym"])
common = st.lists(st.lists(words, min_size=1, max_size=3).map(".".join), min_size=1, max_size=4).map("/".join)


@given(st.one_of(common, common.map(lambda text: text.replace(".", "-")), st.text("aC.o-n/1", max_size=9)))
@pytest.mark.shows("M1", "M3")
def test_the_short_cut_for_common_paths_lets_nothing_more_through(text: str) -> None:
    """Everything accepted at first sight would also be accepted after a close look."""
    if not paths._COMMON.fullmatch(text):
        return
    with mock.patch.object(paths, "_COMMON", NEVER):
        assert len(text) > paths.MAX_SEGMENT_BYTES or check_local_path(text) == text


# Characters that matter to the rules, so that interesting paths are common.
risky = st.text(
    st.one_of(st.sampled_from("abCN./\\~: %25efx0$¹-_oOuUlLmM|\u0301ß"), st.characters()), min_size=0, max_size=24
)
segments = st.sampled_from(
    ["a", "A", "b", "..", ".", "", "nul", "con.x", "C:", "minimal", ".grym-fetch", "%2e%2e", "é", "e\u0301", "x.", "~"]
)
# Deprecated from Python 3.13 on, which asks of a name instead, and refuses more.
is_reserved: Callable[[str], bool] = getattr(ntpath, "isreserved", lambda part: PureWindowsPath(part).is_reserved())
candidates = st.one_of(risky, st.lists(segments, max_size=5).map("/".join))


@given(candidates)
@pytest.mark.shows("M1", "B62", "S5")
def test_an_accepted_path_stays_inside_under_both_rules(text: str) -> None:
    """Joined to a folder, an accepted path lies in it on POSIX and on Windows, part by part as written."""
    try:
        path = check_local_path(text)
    except ValueError:
        return
    for flavour, root in ((PurePosixPath, "/srv/assets"), (PureWindowsPath, "C:\\srv\\assets")):
        joined = flavour(root) / path
        assert joined.is_relative_to(root)
        assert list(joined.relative_to(root).parts) == path.split("/")
    assert not any(map(is_reserved, path.split("/")))
    assert collision_key(path.split("/")[0]) not in {".grym-fetch", "minimal"}


@given(candidates)
def test_checking_twice_changes_nothing(text: str) -> None:
    """An accepted path is accepted again, unchanged."""
    try:
        path = check_local_path(text)
    except ValueError:
        return
    assert check_local_path(path) == path


@pytest.mark.parametrize(
    ("given_paths", "clashes"),
    [
        ([], []),
        (["a", "b", "a.b", "ab", "a-b/c"], []),
        (["a", "a"], [(0, 1, "'a' is used twice")]),
        (["Model", "model"], [(0, 1, "case or Unicode form")]),
        (["stra\u00dfe", "STRASSE"], [(0, 1, "case or Unicode form")]),
        (["\u00fc", "u\u0308"], [(0, 1, "case or Unicode form")]),
        (["a/b", "a"], [(0, 1, "'a' would have to be a file and, for 'a/b', a folder")]),
        (["A", "a/b/c"], [(0, 1, "'A' would have to be a file")]),
        (["a", "a.b", "a/b", "a-b"], [(0, 2, "a folder")]),
        (["a", "a/b", "a/b/c", "a/d"], [(0, 1, "'a' "), (1, 2, "'a/b' "), (0, 3, "'a' ")]),
        (["x", "y", "x", "X"], [(0, 2, "twice"), (0, 3, "case")]),
    ],
)
@pytest.mark.shows("M4", "S5")
def test_finds_paths_that_cannot_exist_together(given_paths: list[str], clashes: list[tuple[int, int, str]]) -> None:
    """Equal paths clash, whatever their case or Unicode form, and so do a file and a folder with the same name."""
    found = find_collisions(given_paths)
    assert [(first, second) for first, second, _ in found] == [(first, second) for first, second, _ in clashes]
    for (_, _, why), (_, _, expected) in zip(found, clashes, strict=True):
        assert expected in why


def collisions_by_comparing_all(candidates: list[str]) -> set[tuple[int, int]]:
    """The rule of `find_collisions` spelled out: each path with its nearest clash, in O(n^2)."""
    keys = [collision_key(path) for path in candidates]
    found: set[tuple[int, int]] = set()
    for index, key in enumerate(keys):
        if (first := keys.index(key)) != index:
            found.add((first, index))
            continue
        if above := [other for other in keys if key.startswith(other + "/")]:
            other = keys.index(max(above, key=len))
            found.add((min(other, index), max(other, index)))
    return found


@given(st.lists(st.lists(st.sampled_from(["a", "A", "b", "a.", "a-", "é", "e\u0301"]), min_size=1, max_size=4)))
@pytest.mark.shows("M4")
def test_finds_the_same_as_comparing_all_pairs(parts: list[list[str]]) -> None:
    """The quick search finds exactly what the slow one does."""
    joined = ["/".join(part) for part in parts]
    found = find_collisions(joined)
    assert {(first, second) for first, second, _ in found} == collisions_by_comparing_all(joined)
    assert len(found) == len({(first, second) for first, second, _ in found})


@pytest.mark.shows("M4", "M7")
@pytest.mark.sweep
def test_a_hundred_thousand_paths_are_compared_in_seconds() -> None:
    """The search is not quadratic, even if all 10^5 paths clash."""
    many = [f"models/{index % 1000}/{index}.bin" for index in range(50_000)]
    start = time.process_time()
    assert len(find_collisions([*many, *many])) == 50_000
    assert len(find_collisions(["a", *(f"a/{path}" for path in many)])) == 50_000
    assert time.process_time() - start < 10
