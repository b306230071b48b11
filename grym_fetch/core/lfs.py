"""The batch API of Git LFS: which question finds out where an object is, and what the answer says.

Rules: what the server names is for this moment: the header fields that go with it are for that address alone, and are
never stored. A server is asked over https, or on this machine over http. The API is Git LFS's `docs/api/batch.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from yarl import URL

from grym_fetch.core.addresses import is_loopback, parse_address
from grym_fetch.core.errors import BadResponse, BadStatus, GrymFetchError
from grym_fetch.core.lfs_addresses import LfsAddress
from grym_fetch.core.manifest_values import check_url, has_login
from grym_fetch.core.strict_json import read_json
from grym_fetch.core.text import safe_text

LFS_TYPE = "application/vnd.git-lfs+json"
MAX_BATCH_ANSWER_BYTES = 256 * 1024
"""The most bytes of an answer about one object."""
MAX_LENT_FIELDS = 20

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110 section 5.1
_FIELD_VALUE = re.compile(r"[!-~](?:[ -~]{0,8190}[!-~])?")
_OURS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "if-range",
        "keep-alive",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that say how a request is sent: a server that could choose them could change what is asked."""


@dataclass(frozen=True, slots=True)
class Lead:
    """Where an object is now, and the fields to send there; the repr shows no value."""

    url: URL
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)


def batch_address(address: LfsAddress) -> URL:
    """The address that is asked where an object is. Raises `PolicyRefused` if it cannot be read."""
    url = parse_address(f"https://{address.server}/objects/batch")
    return url.with_scheme("http") if is_loopback(url) else url


def batch_question(address: LfsAddress) -> bytes:
    """What is asked there."""
    objects = [{"oid": address.oid, "size": address.size}]
    return json.dumps({"operation": "download", "transfers": ["basic"], "objects": objects}).encode()


def server_at(address: str) -> str:
    """Return host and path of a server's API, which an http or https address names.

    Raises `ValueError` for one that cannot be asked.
    """
    parts = urlsplit(check_url(address))
    if has_login(address):
        raise ValueError("has a user or a password in it, which everyone could read")
    if parts.query or parts.fragment:
        raise ValueError("has a ? or a #, which the address of a server does not have")
    if parts.scheme == "http" and not is_loopback(URL(address, encoded=True)):
        raise ValueError("is a plain http address: anyone on the way could change what it answers. Use https")
    return f"{parts.netloc}{parts.path.rstrip('/')}"


def server_of_repository(repository: str) -> str:
    """Return the server of a repository that names no other (`docs/api/server-discovery.md`). Raises `ValueError`."""
    base = server_at(repository)
    return f"{base if base.endswith('.git') else f'{base}.git'}/info/lfs"


def read_batch_answer(body: bytes, address: LfsAddress, where: str) -> Lead:
    """Read where the object is. Raises `BadStatus` if the server has no such object, `BadResponse` for nonsense."""
    try:
        file = read_json(body, max_bytes=MAX_BATCH_ANSWER_BYTES)
        if file.problems:
            raise ValueError(file.problems[0][1])
        return _lead(file.value, address, where)
    except GrymFetchError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadResponse(where, "the answer of the Git LFS server makes no sense") from None


def _lead(answer: object, address: LfsAddress, where: str) -> Lead:
    if not isinstance(answer, dict) or answer.get("transfer", "basic") != "basic":
        raise ValueError("another transfer than the one asked for")
    [found] = answer["objects"]
    if found["oid"] != address.oid:
        raise ValueError("another object than the one asked for")
    if (error := found.get("error")) is not None:
        status = error["code"]
        if type(status) is not int or not 400 <= status <= 599:
            raise ValueError("an error without a status")
        told = safe_text(str(error.get("message") or "no reason given"))
        raise BadStatus(where, status, f"status {status} from the Git LFS server: {told}")
    action = found["actions"]["download"]
    target = parse_address(check_url(action["href"]))
    if target.user is not None or target.password is not None:
        raise ValueError("a login in an address")
    if target.scheme == "http" and not is_loopback(target):
        raise BadResponse(where, "the Git LFS server names a plain http address, over which nothing is asked")
    return Lead(target, _checked_fields(action.get("header") or {}))


def _checked_fields(given: Mapping[object, object]) -> dict[str, str]:
    if len(given) > MAX_LENT_FIELDS:
        raise ValueError("too many fields")
    fields: dict[str, str] = {}
    for name, value in given.items():
        if not isinstance(name, str) or not _FIELD_NAME.fullmatch(name):
            raise ValueError("a name that is not one of a field")
        if not isinstance(value, str) or not _FIELD_VALUE.fullmatch(value):
            raise ValueError("a value that cannot be one of a field")
        if name.lower() not in _OURS:
            fields[name.title() if name.lower() in ("authorization", "accept") else name] = value
    return fields
