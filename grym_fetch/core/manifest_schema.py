"""What ``assets.json`` may hold: one set of models that both validates it and describes it as a JSON Schema.

Rules: types are strict (``"12"``, ``1.0`` and ``true`` are no sizes); null means the default; unknown keys
are let through. Each value is judged alone here, what concerns several values or assets is judged in
`manifest`. Messages say what is wrong and what is allowed, and never repeat an address: it may hold a secret.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from grym_fetch.core.digest import CHECKSUM_RULE, Checksum
from grym_fetch.core.paths import check_local_path
from grym_fetch.core.text import safe_text

Entry = TypeVar("Entry", bound=BaseModel)
Location = tuple[int | str, ...]
"""The keys and indices that lead to a value of the file."""

MAX_ID_LENGTH = 200
MAX_SIZE = 2**63 - 1
"""Largest file in bytes: what an ``off_t`` holds."""
MAX_URL_LENGTH = 8192
"""Longest address in characters: more than any signed address, and what servers commonly take."""
MAX_FALLBACK_URLS = 100

_URL_RULE = "an http:// or https:// address"
_PATH_RULE = "a relative path such as models/base.bin"
_SIZE_RULE = f"a whole number of bytes from 0 to {MAX_SIZE}, or null"
_VERSION_RULE = "a string or a number"
_LABEL_RULE = "a string that is not empty"
RULES: Mapping[str, str] = {
    "": "an object with the list assets",
    "assets": "a list of assets",
    "assets[]": "an object with at least id, url and localPath",
    "updated": "a string such as 2025-03-09T12:00:00Z",
    "version": _VERSION_RULE,
    "id": f"a string of 1 to {MAX_ID_LENGTH} characters",
    "name": "a string",
    "description": "a string",
    "url": _URL_RULE,
    "fallbackUrls": f"a list of at most {MAX_FALLBACK_URLS} addresses",
    "fallbackUrls[]": _URL_RULE,
    "localPath": _PATH_RULE,
    "checksum": CHECKSUM_RULE,
    "size": _SIZE_RULE,
    "required": "true or false",
    "tags": "a list of strings",
    "tags[]": _LABEL_RULE,
    "metadata": "an object",
    "minimal": "an object with url, checksum and size",
    "extract": "true or false",
}
"""What is allowed for each key, in words for an error; ``key[]`` is an item of a list."""

_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_NOT_IN_URLS = frozenset({*_UNSAFE_CATEGORIES, "Zs"})
# What nearly every id and address looks like; whatever else is read part by part.
_COMMON_ID = re.compile(rf"[\w.][\w.-]{{0,{MAX_ID_LENGTH - 1}}}", re.ASCII)
_COMMON_URL = re.compile(r"https?://[a-z0-9]++(?:[.-][a-z0-9]++)*+(?::[1-9][0-9]{0,3})?+(?P<rest>[/?#][!-\[\]-~]*+)?+")
_PLAIN_URL = re.compile(r"[!-\[\]-~]*")  # printable ASCII but space and backslash
_USERINFO = re.compile(r"[\w.~!$&'()*+,;=:%-]*", re.ASCII)  # RFC 3986, section 3.2.1
_HOST_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE | re.ASCII)


def check_url(text: str) -> str:
    """Return ``text`` if it is an address that every parser reads in the same way.

    Whatever parsers are known to disagree on (spaces, controls, backslashes, two @, escapes in the host) is
    refused, so that the host that was checked is the host that is asked.

    Raises:
        ValueError: it is not; the message says why.
    """
    if len(text) > MAX_URL_LENGTH:
        raise ValueError(f"is {len(text)} characters long; at most {MAX_URL_LENGTH} are allowed")
    common = _COMMON_URL.fullmatch(text)
    if common and (common.start("rest") if common["rest"] else len(text)) <= 63:
        return text
    if not _PLAIN_URL.fullmatch(text):
        _check_url_characters(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        if "port" in str(error).lower():
            raise ValueError("has a port that is no number from 1 to 65535") from None
        raise ValueError("has a host that cannot be read") from None
    if parts.scheme not in ("http", "https"):
        scheme = f"starts with {parts.scheme}:" if parts.scheme else "has no scheme"
        raise ValueError(f"{scheme}; allowed: {_URL_RULE}")
    if not parts.hostname:
        raise ValueError(f"has no host; allowed: {_URL_RULE}")
    if port == 0:
        raise ValueError("has a port that is no number from 1 to 65535")
    userinfo, _, place = parts.netloc.rpartition("@")
    if not _USERINFO.fullmatch(userinfo):
        raise ValueError("has characters before the host that must be percent-encoded there (a second @, a bracket)")
    _check_host(parts.hostname, is_literal=place.startswith("["))
    return text


def _check_url_characters(text: str) -> None:
    if "\\" in text:
        raise ValueError("has a backslash; separate with / or write it as %5C")
    for char in text:
        if unicodedata.category(char) in _NOT_IN_URLS:
            shown = "a space" if char == " " else f"the character {char.encode('unicode_escape').decode()}"
            raise ValueError(f"has {shown}, which must be percent-encoded")


def _check_host(host: str, *, is_literal: bool) -> None:
    if is_literal:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("has brackets around a host that is no IPv6 address") from None
        return
    # A name is at most 253 characters (RFC 1035); the limit also bounds the IDNA codec, which is quadratic.
    if len(host) > 253:
        raise ValueError(f"has a host of {len(host)} characters; at most 253 are allowed")
    try:
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError("has a host that is no valid international name") from None
    if not all(_HOST_LABEL.fullmatch(label) for label in name.removesuffix(".").split(".")):
        raise ValueError("has a host that is no valid name (letters, digits, - and _ in parts joined by dots)")


def check_id(text: str) -> str:
    """Return ``text`` if it can be an asset's id: something to type on a command line and to read in a log.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if _COMMON_ID.fullmatch(text):
        return text
    if not text:
        raise ValueError(f"is empty; allowed: {RULES['id']}")
    if len(text) > MAX_ID_LENGTH:
        raise ValueError(f"is {len(text)} characters long; at most {MAX_ID_LENGTH} are allowed")
    _check_label(text)
    if text != text.strip():
        raise ValueError("begins or ends with white space")
    if text.startswith("-"):
        raise ValueError("begins with -, so a command line would take it for an option")
    if "/" in text:
        raise ValueError("has a /; an id is a name, not a path")
    return text


def _check_label(text: str) -> str:
    if not text:
        raise ValueError(f"is empty; allowed: {_LABEL_RULE}")
    if not (text.isascii() and text.isprintable()):
        for char in text:
            if unicodedata.category(char) in _UNSAFE_CATEGORIES:
                raise ValueError(f"has a control or invisible character ({safe_text(char)})")
    return text


def describe(value: object) -> str:
    """Say what a JSON value is, as the predicate of an error about it. Strings are not repeated."""
    if value is None or isinstance(value, bool):
        return {None: "is null", True: "is true", False: "is false"}[value]
    if isinstance(value, int | float):
        return f"is {value}"
    for kind, words in ((str, "is a string"), (list, "is a list"), (dict, "is an object")):
        if isinstance(value, kind):
            return words
    return "is not a value"


def nearest_key(key: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that ``key`` was probably meant to be, whatever its case and joining signs."""
    # No typo is longer, and a file made to be slow has its keys by the million.
    plain = {_joined(candidate): candidate for candidate in islice(candidates, 100) if len(candidate) <= 40}
    matches = difflib.get_close_matches(_joined(key[:40]), plain, n=1, cutoff=0.75)
    return plain[matches[0]] if matches else None


def _joined(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


def _read_checksum(value: object) -> Checksum:
    if not isinstance(value, str):
        raise ValueError(f"{describe(value)}; allowed: {CHECKSUM_RULE}")  # noqa: TRY004 - pydantic's wish
    return Checksum.parse(value)


def _read_version(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{describe(value)}; allowed: {_VERSION_RULE}")  # noqa: TRY004 - pydantic's wish
    return str(value)


_DIGEST_PATTERN = "^(([Ss][Hh][Aa]256:)?[0-9A-Fa-f]{64}|([Ss][Hh][Aa]512|[Bb][Ll][Aa][Kk][Ee]2[Bb]):[0-9A-Fa-f]{128})$"
_Url = Annotated[
    str,
    AfterValidator(check_url),
    Field(
        json_schema_extra={
            "format": "uri",
            "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://",
            "maxLength": MAX_URL_LENGTH,
        }
    ),
]
_Id = Annotated[str, AfterValidator(check_id), Field(json_schema_extra={"minLength": 1, "maxLength": MAX_ID_LENGTH})]
_LocalPath = Annotated[str, AfterValidator(check_local_path), Field(json_schema_extra={"minLength": 1})]
_Tag = Annotated[str, AfterValidator(_check_label), Field(json_schema_extra={"minLength": 1})]
_Checksum = Annotated[
    Checksum,
    PlainValidator(_read_checksum),
    WithJsonSchema({"type": "string", "pattern": _DIGEST_PATTERN}),
]
_Version = Annotated[str | None, PlainValidator(_read_version), WithJsonSchema({"type": ["string", "number", "null"]})]
_Size = Annotated[int, Field(ge=0, le=MAX_SIZE)]
_FallbackUrls = Annotated[list[_Url], Field(max_length=MAX_FALLBACK_URLS)]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", alias_generator=to_camel)


class StandInEntry(_Entry):
    """A small stand-in for tests and development. It lies under minimal/<localPath>."""

    model_config = ConfigDict(title="Stand-in")

    url: _Url = Field(description="Address of the stand-in.")
    checksum: _Checksum | None = Field(
        default=None, description="Checksum of the stand-in, as for the asset. null: not pinned."
    )
    size: _Size | None = Field(default=None, description="Size of the stand-in in bytes. null: not known.")
    fallback_urls: _FallbackUrls | None = Field(
        default=None, description="Further addresses of the stand-in, tried when the first fails."
    )


class AssetEntry(_Entry):
    """One file to make present and verified."""

    model_config = ConfigDict(title="Asset")

    id: _Id = Field(description="Unique name of the asset on the command line and in the API.")
    name: str | None = Field(default=None, description="Name for people. Default: the id.")
    description: str | None = Field(default=None, description="What the asset is for.")
    url: _Url = Field(description="Primary address, http or https.")
    fallback_urls: _FallbackUrls | None = Field(
        default=None, description="Mirrors of the same content, in order of preference."
    )
    local_path: _LocalPath = Field(
        description="Where the file lies, relative to the assets folder, with / between folders. Must be "
        "safe and distinct on Linux, macOS and Windows."
    )
    checksum: _Checksum | None = Field(
        default=None,
        description="Checksum of the content: 64 hex digits (SHA-256), or sha256:, sha512: or blake2b: "
        "and the digits. null: not pinned, so a download cannot be verified; `grym-fetch pin` records it.",
    )
    size: _Size | None = Field(default=None, description="Size in bytes. null: not known.")
    version: _Version = Field(default=None, description="Version of the asset, for people.")
    required: bool | None = Field(
        default=False, description="Whether a sync without any choice of assets fetches this one."
    )
    tags: list[_Tag] | None = Field(
        default=None, description="Groups to choose assets by. `essential` marks what --minimal fetches."
    )
    metadata: dict[str, object] | None = Field(
        default=None, description="Anything of your own; kept as it is and not used."
    )
    minimal: StandInEntry | None = Field(default=None, description="A small stand-in for the asset.")
    extract: bool | None = Field(
        default=False,
        description="Whether the file is an archive (.zip, .tar, .tar.gz, .tgz, .tar.zst) that is unpacked into the "
        "folder of its name without that ending, next to it.",
    )


class ManifestFile(_Entry):
    """The assets of a project: where each comes from, where it lies, and what it must be."""

    model_config = ConfigDict(title="grym-fetch manifest (assets.json)")

    version: _Version = Field(default=None, description="Version of this list of assets.")
    updated: str | None = Field(default=None, description="When the list was last changed, in ISO 8601.")
    assets: list[AssetEntry] = Field(description="The assets. Ids and local paths must be distinct.")


def manifest_json_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of ``assets.json``, made from the models that validate it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ManifestFile.model_json_schema(by_alias=True),
    }


def read_model(
    model: type[Entry], value: object, location: Location, report: Callable[[Location, str], None]
) -> Entry | None:
    """Return ``value`` as ``model``, or None after every problem was reported with its place in the file.

    Text with half a surrogate pair is not reported: whoever read the file knows of it and has its place.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            if found["type"] != "string_unicode":
                place = (*location, *found["loc"])
                report(place, _message(found, place))
    return None


def _message(found: ErrorDetails, place: Location) -> str:
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    name = next((part for part in reversed(place) if isinstance(part, str)), "")
    rule = RULES[f"{name}[]" if place and isinstance(place[-1], int) else name]
    if found["type"] == "missing":
        meant = nearest_key(name, found["input"])
        return f"is missing; needed: {rule}" + (f" (is '{safe_text(meant)}' meant?)" if meant else "")
    if found["type"] == "too_long":
        return f"has {len(found['input'])} items; allowed: {rule}"
    return f"{describe(found['input'])}; allowed: {rule}"
