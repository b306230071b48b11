"""What ``assets.json`` may hold: one set of models that both validates it and describes it as a JSON Schema.

Rules: types are strict (``"12"``, ``1.0`` and ``true`` are no sizes); null means the default; unknown keys
are let through. Each value is judged alone here, what concerns several values or assets is judged in
`manifest_parser`. Messages say what is wrong and what is allowed, and never repeat an address: it may hold a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Annotated, TypeVar

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
from grym_fetch.core.freshness import EXPIRY_RULE, parse_expiry
from grym_fetch.core.manifest_values import (
    ID_RULE,
    LABEL_RULE,
    MAX_FALLBACK_URLS,
    MAX_ID_LENGTH,
    MAX_SIZE,
    MAX_URL_LENGTH,
    URL_RULE,
    check_id,
    check_label,
    check_url,
)
from grym_fetch.core.paths import check_local_path
from grym_fetch.core.text import safe_text

Entry = TypeVar("Entry", bound=BaseModel)
Location = tuple[int | str, ...]
"""The keys and indices that lead to a value of the file."""

_PATH_RULE = "a relative path such as models/base.bin"
_SIZE_RULE = f"a whole number of bytes from 0 to {MAX_SIZE}, or null"
_VERSION_RULE = "a string or a number"
RULES: Mapping[str, str] = {
    "": "an object with the list assets",
    "assets": "a list of assets",
    "assets[]": "an object with at least id, url and localPath",
    "updated": "a string such as 2025-03-09T12:00:00Z",
    "expires": EXPIRY_RULE,
    "version": _VERSION_RULE,
    "id": ID_RULE,
    "name": "a string",
    "description": "a string",
    "url": URL_RULE,
    "fallbackUrls": f"a list of at most {MAX_FALLBACK_URLS} addresses",
    "fallbackUrls[]": URL_RULE,
    "localPath": _PATH_RULE,
    "checksum": CHECKSUM_RULE,
    "size": _SIZE_RULE,
    "required": "true or false",
    "tags": "a list of strings",
    "tags[]": LABEL_RULE,
    "metadata": "an object",
    "minimal": "an object with url, checksum and size",
    "extract": "true or false",
}
"""What is allowed for each key, in words for an error; ``key[]`` is an item of a list."""


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


def _read_expiry(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError(f"{describe(value)}; allowed: {EXPIRY_RULE}")  # noqa: TRY004 - pydantic's wish
    return parse_expiry(value)


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
_Tag = Annotated[str, AfterValidator(check_label), Field(json_schema_extra={"minLength": 1})]
_Checksum = Annotated[
    Checksum,
    PlainValidator(_read_checksum),
    WithJsonSchema({"type": "string", "pattern": _DIGEST_PATTERN}),
]
_Version = Annotated[str | None, PlainValidator(_read_version), WithJsonSchema({"type": ["string", "number", "null"]})]
_Expires = Annotated[
    float, PlainValidator(_read_expiry), WithJsonSchema({"type": "string", "format": "date-time"}, mode="validation")
]
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

    version: _Version = Field(
        default=None,
        description="Version of this list of assets. One of numbers and dots must not fall; other text is a label.",
    )
    updated: str | None = Field(default=None, description="When the list was last changed, in ISO 8601.")
    expires: _Expires | None = Field(
        default=None, description="When this list is no longer to be used, in RFC 3339. null: never."
    )
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
