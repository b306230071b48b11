"""The batch API of Git LFS: what is asked, and which answers are believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from yarl import URL

from grym_fetch.core.errors import BadResponse, BadStatus, GrymFetchError, PolicyRefused
from grym_fetch.core.lfs import Lead, batch_address, batch_question, read_batch_answer, server_at, server_of_repository
from grym_fetch.core.lfs_addresses import LfsAddress

OID = "4d" * 32
ADDRESS = LfsAddress("git.example/org/model.git/info/lfs", OID, 1000)
WHERE = "https://git.example/org/model.git/info/lfs/objects/batch"
HREF = "https://store.example/4d?sig=hush"


def answer(**action: Any) -> dict[str, Any]:
    """An answer that names a place."""
    return {
        "transfer": "basic",
        "objects": [{"oid": OID, "size": 1000, "actions": {"download": {"href": HREF, **action}}}],
    }


def read(value: object) -> Lead:
    """Read it as JSON."""
    return read_batch_answer(json.dumps(value).encode(), ADDRESS, WHERE)


def test_the_question() -> None:
    """One object is asked for, over https, or over http on this machine."""
    assert batch_address(ADDRESS) == URL(WHERE)
    assert str(batch_address(LfsAddress("localhost:8000/x", OID, 1))) == "http://localhost:8000/x/objects/batch"
    objects = [{"oid": OID, "size": 1000}]
    asked = {"operation": "download", "transfers": ["basic"], "objects": objects}
    assert json.loads(batch_question(ADDRESS)) == asked


def test_an_answer() -> None:
    """The place, and the fields to send there, but for those that say how a request is sent."""
    fields = {"authorization": "Basic abc", "X-Key": "1", "Range": "bytes=0-1", "Host": "h", "Cookie": "c"}
    lead = read(answer(header=fields, expires_in=-1e300, expires_at="never"))
    assert lead == Lead(URL(HREF), {"Authorization": "Basic abc", "X-Key": "1"})
    assert "abc" not in repr(lead)
    assert read({"objects": answer()["objects"]}).fields == {}


@pytest.mark.shows("S7", "S9", "C15")
@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {},
        {"objects": []},
        {"objects": answer()["objects"] * 2},
        {**answer(), "transfer": "ssh"},
        {"objects": [{"oid": "5e" * 32, "actions": {"download": {"href": HREF}}}]},
        {"objects": [{"oid": OID}]},
        {"objects": [{"oid": OID, "actions": {"upload": {"href": HREF}}}]},
        {"objects": [{"oid": OID, "error": {"code": "404"}}]},
        {"objects": [{"oid": OID, "error": {"code": 200}}]},
        answer(href=17),
        answer(href="file:///etc/passwd"),
        answer(href="https://user:word@store.example/a"),
        answer(href="http://store.example/a"),
        answer(header=["x"]),
        answer(header={"X\r\nHost": "h"}),
        answer(header={"X": "a\r\nHost: h"}),
        answer(header={"X": "\u00e9"}),
        answer(header={f"X-{n}": "1" for n in range(21)}),
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_an_answer_that_makes_no_sense(wrong: object) -> None:
    """It is the server's failure, and tells nothing of what it said."""
    with pytest.raises((BadResponse, PolicyRefused)) as caught:
        read(wrong)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"objects": [], "objects": []}', b"[" * 100_000])
def test_what_is_not_json(body: bytes) -> None:
    """The same."""
    with pytest.raises(BadResponse, match="makes no sense"):
        read_batch_answer(body, ADDRESS, WHERE)


@pytest.mark.parametrize("status", [404, 410, 422])
def test_an_object_that_is_not_there(status: int) -> None:
    """The server's own words are shown, without what could move a cursor."""
    told = {"code": status, "message": "no\u001b[2J such object"}
    with pytest.raises(BadStatus, match=rf"status {status} from the Git LFS server: no\\x1b\[2J such") as caught:
        read({"objects": [{"oid": OID, "size": 1000, "error": told}]})
    assert caught.value.status == status
    assert isinstance(caught.value, GrymFetchError)


def test_where_the_server_of_a_repository_is() -> None:
    """As Git LFS finds it, with or without .git."""
    wanted = "git.example/org/model.git/info/lfs"
    assert server_of_repository("https://git.example/org/model") == wanted
    assert server_of_repository("https://git.example/org/model.git/") == wanted
    assert server_at("http://127.0.0.1:8000/x/") == "127.0.0.1:8000/x"
    for wrong in ("ssh://git@h.example/a", "https://u:p@h.example/a", "http://h.example/a", "https://h.example/a?b"):
        with pytest.raises(ValueError, match=r"."):
            server_at(wrong)
