"""What an archive may hold: names, links, counts, sizes."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_fetch.core.archives import (
    MAX_DEPTH,
    MIB,
    PLACE_BYTES,
    Census,
    Limits,
    Member,
    archive_kind,
    member_path,
    unpacked_path,
)
from grym_fetch.core.errors import ManifestError, UnsafeArchive
from grym_fetch.core.manifest_parser import parse_manifest

SMALL = Limits(members=20, bytes=1000, ratio=10, ratio_free=100)


def census(*members: Member, packed: int = MIB, limits: Limits | None = None) -> Census:
    """A finished census of these members."""
    made = Census("a.zip", packed, limits or Limits())
    for member in members:
        made.admit(member)
        made.count(member.size)
    made.close()
    return made


def link(path: str, target: str) -> Member:
    return Member(path, "symlink", target=target)


def file(path: str, size: int = 1) -> Member:
    return Member(path, "file", size)


@pytest.mark.parametrize(
    ("path", "kind", "folder"),
    [
        ("a/b.zip", "zip", "a/b"),
        ("b.tar", "tar", "b"),
        ("b.tar.gz", "tar.gz", "b"),
        ("b.TGZ", "tar.gz", "b"),
        ("v1.2.tar.zst", "tar.zst", "v1.2"),
        ("minimal/b.zip", "zip", "minimal/b"),
    ],
)
def test_kinds_and_folders(path: str, kind: str, folder: str) -> None:
    """The name tells the kind; the folder is the name without the archive's ending."""
    assert archive_kind(path) == kind
    assert unpacked_path(path) == folder


@pytest.mark.parametrize(
    ("path", "complaint"),
    [(name, "this is no archive") for name in ("a.rar", "a.gz", "a")]
    + [(name, "the folder '.*' ") for name in ("models/.zip", "minimal.zip", ".grym-fetch.tar", "x/.git.zip")],
)
def test_what_cannot_be_unpacked(path: str, complaint: str) -> None:
    """A file is refused if its name is not an archive's, or if its folder would be reserved or nameless."""
    with pytest.raises(ValueError, match=f"is true, but {complaint}"):
        unpacked_path(path)


def test_names_are_read_as_archives_write_them() -> None:
    """A leading ./ and a trailing / mean nothing; the top folder is empty; an absolute name stays absolute."""
    names = ["./a/b/", "././a", ".//a", ".", "./", "/etc/x", "/", "a//b"]
    assert [member_path(name) for name in names] == ["a/b", "a", "a", "", "", "/etc/x", "/", "a//b"]


@pytest.mark.parametrize(
    "path",
    ["../a", "a/../../b", "/etc/passwd", "a\\..\\b", "C:/x", "a//b", "con", "a/nul.txt", "a\x00b", "a\nb", "x/..", "",
     ".git/config", "a/.GIT/hooks/x", "git~1/config", ".g\u200cit/config", ".git::$INDEX_ALLOCATION/x"],
)  # fmt: skip
@pytest.mark.shows("S5", "S17")
def test_names_that_are_refused(path: str) -> None:
    """A name that leads outside, or that some system takes for another, makes the archive refused, and is named."""
    with pytest.raises(UnsafeArchive, match="its member"):
        census(file(path))


def test_an_absolute_name_is_called_one() -> None:
    """The refusal says what is wrong with the name, not what the rest of it would look like."""
    with pytest.raises(UnsafeArchive, match="'/etc/passwd' has an absolute name"):
        census(file("/etc/passwd"))


@pytest.mark.parametrize("path", ["minimal/a", ".grym-fetch/x", "~a", "asset-manifest.json", "a b/ü.txt"])
def test_names_that_are_allowed(path: str) -> None:
    """Names reserved at the top of the assets folder are free inside an archive's own folder."""
    census(file(path))


@pytest.mark.parametrize(
    "members",
    [
        (file("a"), file("a")),
        (file("a/Read.me"), file("a/readme"), file("A/x")),
        (file("README"), file("readme")),
        (file("\u00e9"), file("e\u0301")),
        (file("a"), file("a/b")),
        (file("a/b"), file("a")),
        (Member("a", "folder"), file("a")),
        (file("a"), Member("a", "folder")),
        (Member("a", "folder"), Member("A", "folder")),
        (link("a", "b"), file("a/c")),
        (file("a/c"), link("a", "b")),
    ],
)
def test_two_members_in_one_place(members: tuple[Member, ...]) -> None:
    """Members are refused if some system takes them for one file, or if one would lie below another that is a file."""
    with pytest.raises(UnsafeArchive):
        census(*members)


def test_a_folder_may_come_twice() -> None:
    """Archives may name folders before, after and between their files."""
    made = census(file("a/b"), Member("a", "folder"), Member("", "folder"))
    assert not made.admit(Member("a", "folder"))


@pytest.mark.parametrize(
    "links",
    [
        [("a", "/etc")],
        [("a", "..")],
        [("a", "b\\..\\..\\x")],
        [("a", "~/x")],
        [("a", "b" * 1025)],
        [("d/a", "../../x")],
        [("a", "d/../../x")],
        # Each stays inside if read alone; together they lead out.
        [("d/up", ".."), ("e", "d/up/../x")],
        # Where case or Unicode form is not told apart.
        [("p/q/UP", "../.."), ("e", "p/q/up/../x")],
        [("p/q/\u00e9", "../.."), ("e", "p/q/e\u0301/../x")],
        [("one", "two"), ("two", "one")],
        [("a", "")],
        [("a", "x\ny")],
        [("a", "c:x")],
        [("a", "x\x1fy")],
        [(f"l{n}", f"l{n + 1}") for n in range(41)],
        [("l", "."), ("a", "/".join(["l"] * 40))],
        [("a", "/".join("x" * 241))],
    ],
)
@pytest.mark.shows("S5")
def test_symlinks_that_lead_out(links: list[tuple[str, str]]) -> None:
    """A symlink is followed as the kernel would, through others; one that leads out or nowhere refuses the archive."""
    with pytest.raises(UnsafeArchive, match="symlink"):
        census(Member("d", "folder"), *(link(*pair) for pair in links))


def test_symlinks_that_stay_inside() -> None:
    """Links to members, to folders, through other links and to what does not exist are allowed."""
    made = census(file("d/a"), link("b", "d/a"), link("d/up", "../d"), link("c", "d/up/a"), link("e", "not/there"))
    assert set(made.links) == {"b", "d/up", "c", "e"}


@pytest.mark.parametrize(
    "links",
    [
        [("a", "b" * 1024)],
        [(f"l{n}", f"l{n + 1}") for n in range(40)],
        [("l", "."), ("a", "/".join(["l"] * 39))],
        [("a", "/".join("x" * 240))],
        [("a", "x y")],
    ],
)
def test_symlinks_as_long_as_they_may_be(links: list[tuple[str, str]]) -> None:
    """Forty links in a row are followed, and 240 folders deep, as Linux does; a target has at most 1,024 characters."""
    census(*(link(*pair) for pair in links))


@pytest.mark.parametrize(
    ("members", "refused"),
    [
        ([file("a/HEAD"), file("a/objects/x"), Member("a/refs", "folder")], True),
        ([Member("refs", "folder"), Member("objects", "folder"), file("Head")], True),
        ([file("a/HEAD"), file("a/commondir")], True),
        ([link("a/HEAD", "b"), file("a/commondir")], True),
        ([file("a/HEAD"), file("a/objects/x"), Member("b/refs", "folder")], False),
        ([Member("a/HEAD", "folder"), file("a/objects/x"), Member("a/refs", "folder")], False),
        ([file("a/AHEAD"), file("a/objects/x"), Member("a/refs", "folder")], False),
    ],
)
@pytest.mark.shows("S17")
def test_members_that_make_a_repository(members: list[Member], refused: bool) -> None:
    """A folder that git would take for a repository refuses the archive, in whatever order its parts come."""
    for order in (members, members[::-1]):
        with pytest.raises(UnsafeArchive, match="makes a git repository") if refused else nullcontext():
            census(*order)


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "later", "folder", "sym"])
@pytest.mark.shows("S5")
def test_hard_links(target: str) -> None:
    """A hard link must lead to an earlier file of the archive; otherwise the archive is refused."""
    start = (file("a"), Member("folder", "folder"), link("sym", "a"))
    census(*start, Member("ok", "hardlink", target="a"), Member("too", "hardlink", target="ok"))
    with pytest.raises(UnsafeArchive, match="hard link"):
        census(*start, Member("b", "hardlink", target=target), file("later"))


@pytest.mark.shows("S5")
def test_devices() -> None:
    """Devices and pipes are refused."""
    with pytest.raises(UnsafeArchive, match="device"):
        census(Member("null", "device"))


@pytest.mark.shows("S4")
def test_too_many_members() -> None:
    """More members than allowed are refused, whatever kind they are."""
    census(*(Member("", "folder") for _ in range(20)), limits=SMALL)
    with pytest.raises(UnsafeArchive, match="more than 20 members"):
        census(*(Member("", "folder") for _ in range(21)), limits=SMALL)


@pytest.mark.shows("S4")
def test_too_many_places() -> None:
    """Folders that are named only as part of a path count, too."""
    with pytest.raises(UnsafeArchive, match="more than 20 files and folders"):
        census(file("/".join("abcdefghijklmnopqrst") + "/u"), limits=SMALL)


@pytest.mark.shows("S4")
def test_too_many_bytes() -> None:
    """The total size is bounded, both as claimed before a byte is unpacked and as it arrives."""
    honest, limit = Census("a.zip", MIB, SMALL), "it unpacks to more than 1,000 bytes; nothing"
    honest.admit(file("a", 600))
    honest.count(600)
    with pytest.raises(UnsafeArchive, match=limit):
        honest.admit(file("b", 401))
    liar = Census("a.zip", MIB, SMALL)
    liar.admit(file("a", 1))
    with pytest.raises(UnsafeArchive, match=limit):
        liar.count(1001)


@pytest.mark.shows("S4")
def test_a_stream_that_is_longer_than_what_is_in_it() -> None:
    """A stream of nothing but headers and padding is bounded, too: 2 KiB per member plus 1 MiB."""
    made = Census("a.tar.gz", MIB, SMALL)
    made.admit(file("a", 1))
    made.check_stream(1000 + 17 * 2048 + MIB)
    with pytest.raises(UnsafeArchive, match="unpacks to more"):
        made.check_stream(1001 + 17 * 2048 + MIB)


@pytest.mark.shows("S4")
def test_a_list_of_members_is_bounded_before_it_is_made() -> None:
    """The number that an archive states is judged, and the memory that so many members and such a list would take."""
    made = Census("a.zip", 1, Limits(members=20, memory=20 * PLACE_BYTES + 9, memory_ratio=1))
    made.check_directory(20, 9)
    with pytest.raises(UnsafeArchive, match="more than 20 members"):
        made.check_directory(21, 0)
    with pytest.raises(UnsafeArchive, match="more members, or longer names"):
        made.check_directory(20, 10)


@pytest.mark.parametrize(
    ("member", "too_little", "enough"),
    [(file("a/b"), 5000, 8000), (file("a" * 200), 1350, 2500), (link("a", "b" * 1000), 2500, 3500)],
)
@pytest.mark.shows("S4")
def test_memory_that_a_member_takes(member: Member, too_little: int, enough: int) -> None:
    """Its place counts, its name, its target, and a block for an implied folder; a large archive may have more."""
    census(member, packed=1, limits=Limits(memory=enough, memory_ratio=4))
    census(member, packed=enough // 4, limits=Limits(memory=1, memory_ratio=4))
    with pytest.raises(UnsafeArchive, match="more members, or longer names"):
        census(member, packed=1, limits=Limits(memory=too_little, memory_ratio=4))


@pytest.mark.shows("S4")
def test_long_work_can_be_stopped() -> None:
    """Whether to stop is asked at every part of a stream, and at every 1,024th link when all are judged."""
    asked: list[int] = []
    made = Census("a.tar", MIB, Limits(), lambda: asked.append(1))
    for number in range(1025):
        made.admit(link(f"l{number}", "x"))
    assert not asked
    made.check_stream(0)
    assert len(asked) == 1
    made.close()
    assert len(asked) == 3


@pytest.mark.shows("S4")
def test_too_deep() -> None:
    """Nesting is limited, so that removing the folders never runs out of stack or path."""
    census(file("a/" * MAX_DEPTH + "a"))
    with pytest.raises(UnsafeArchive, match="more than 100 folders deep"):
        census(file("a/" * (MAX_DEPTH + 1) + "a"))


@pytest.mark.shows("S4")
def test_the_ratio() -> None:
    """A small archive that unpacks to far more is refused; below a minimum size the ratio does not matter."""
    census(file("a", 100), packed=1, limits=SMALL)
    census(file("a", 500), packed=50, limits=SMALL)
    with pytest.raises(UnsafeArchive, match="no honest archive"):
        census(file("a", 501), packed=50, limits=SMALL)


names = st.lists(st.sampled_from(["a", "b", "..", ".", "d", ""]), min_size=1, max_size=5).map("/".join)


@given(st.dictionaries(st.sampled_from(["x", "d/y", "d/e/z", "w"]), names, min_size=1))
@pytest.mark.shows("S5")
def test_what_is_admitted_stays_inside(links: dict[str, str]) -> None:
    """Whatever links an archive has, it is refused or the kernel's way through them never leaves the tree."""
    try:
        census(Member("d/e", "folder"), *(link(path, target) for path, target in links.items()))
    except UnsafeArchive:
        return
    for start in links:
        here, ahead = start.split("/")[:-1], links[start].split("/")
        for _ in range(1000):
            if not ahead:
                break
            part = ahead.pop(0)
            if part == "..":
                assert here, "it has left the tree"
                here.pop()
            elif part not in ("", "."):
                here.append(part)
                if "/".join(here) in links:
                    ahead = links["/".join(here)].split("/") + ahead
                    here.pop()


def manifest(*paths: str, extract: object = True) -> bytes:
    """A manifest of assets at these paths; the first is marked to be unpacked."""
    entries: list[dict[str, object]] = [
        {"id": f"asset-{n}", "url": f"https://x.org/{n}", "localPath": path} for n, path in enumerate(paths)
    ]
    entries[0]["extract"] = extract
    return json.dumps({"assets": entries}).encode()


def test_extract_in_a_manifest() -> None:
    """The key is read, and defaults to false."""
    one, other = parse_manifest(manifest("a/x.zip", "a/y.zip"), "m").manifest.assets
    assert (one.extract, other.extract) == (True, False)
    assert one.stand_in().extract


@pytest.mark.parametrize(
    "paths",
    [
        ("a/x.zip", "a/x"),
        ("a/x.zip", "a/X/file.bin"),
        ("a/x.bin",),
        ("minimal.zip",),
    ],
)
def test_a_folder_that_clashes(paths: tuple[str, ...]) -> None:
    """An unpacked tree without a folder, or in the place of another asset, is a problem of the manifest."""
    with pytest.raises(ManifestError) as caught:
        parse_manifest(manifest(*paths), "m")
    assert [(problem.where, problem.key) for problem in caught.value.problems] == [("asset 'asset-0'", "extract")]


def test_two_archives_for_one_folder() -> None:
    """Two archives that would be unpacked into the same folder are a problem that names both."""
    data = json.loads(manifest("x.zip", "x.tar.gz"))
    data["assets"][1]["extract"] = True
    with pytest.raises(ManifestError, match="clashes with 'x' of asset 'asset-0'"):
        parse_manifest(json.dumps(data).encode(), "m")


def test_extract_is_true_or_false() -> None:
    """Types are strict here too."""
    with pytest.raises(ManifestError, match="allowed: true or false"):
        parse_manifest(manifest("x.zip", extract="yes"), "m")
