"""The format of ``assets.json``, as a table: one line for each key says how it is read, written and described.

Rules: each value is judged alone here; what concerns several values or assets is judged in `manifest_parser`. Nothing
else knows the keys of the file: the parser, the editor's new entries and the JSON Schema all use this table.
"""

from __future__ import annotations

from grym_fetch.core.buckets import SCHEMES as BUCKETS
from grym_fetch.core.digest import CHECKSUM_RULE, Checksum, parse_all_checksums
from grym_fetch.core.freshness import EXPIRY_RULE, parse_expiry
from grym_fetch.core.lfs_addresses import SCHEME as LFS
from grym_fetch.core.manifest import Asset, Manifest, StandIn
from grym_fetch.core.manifest_values import (
    ADDRESS_RULE,
    ID_RULE,
    LABEL_RULE,
    MAX_FALLBACK_URLS,
    MAX_ID_CHARACTERS,
    MAX_SIZE_BYTES,
    MAX_URL_CHARACTERS,
    SOURCE_RULE,
    check_address,
    check_all_ids,
    check_all_labels,
    check_all_urls,
    check_id,
    check_label,
    check_source,
)
from grym_fetch.core.paths import check_all_local_paths, check_local_path
from grym_fetch.core.piece_digests import (
    MAX_PIECE_BYTES,
    MIN_PIECE_BYTES,
    PIECE_DIGEST_RULE,
    PieceDigests,
    check_piece_digest,
)
from grym_fetch.core.schema import Key, Object, any_object, flag, list_of, text, text_or_number, whole_number

_DIGEST_PATTERN = "^(([Ss][Hh][Aa]256:)?[0-9A-Fa-f]{64}|([Ss][Hh][Aa]512|[Bb][Ll][Aa][Kk][Ee]2[Bb]):[0-9A-Fa-f]{128})$"


def _written_time(moment: float) -> str:
    from datetime import UTC, datetime  # most manifests have no such time

    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


_TEXT = text("a string", str)
_FLAG = flag("true or false")
_VERSION = text_or_number("a string or a number")
_ID = text(ID_RULE, check_id, check_all=check_all_ids, minLength=1, maxLength=MAX_ID_CHARACTERS)
_LOCAL_PATH = text(
    "a relative path such as models/base.bin", check_local_path, check_all=check_all_local_paths, minLength=1
)
_URL = text(
    ADDRESS_RULE,
    check_address,
    check_all=check_all_urls,
    format="uri",
    pattern=f"^([Hh][Tt][Tt][Pp][Ss]?|{'|'.join((*BUCKETS, LFS))})://",
    maxLength=MAX_URL_CHARACTERS,
)
_URLS = list_of(_URL, f"a list of at most {MAX_FALLBACK_URLS} addresses", max_items=MAX_FALLBACK_URLS)
_CHECKSUM = text(
    CHECKSUM_RULE,
    Checksum.parse,
    lambda checksum: checksum.bare,
    check_all=parse_all_checksums,
    pattern=_DIGEST_PATTERN,
)
_SIZE = whole_number(f"a whole number of bytes from 0 to {MAX_SIZE_BYTES}, or null", MAX_SIZE_BYTES)
_SOURCE = text(SOURCE_RULE, check_source, minLength=1, maxLength=MAX_URL_CHARACTERS)
_TAGS = list_of(
    text(LABEL_RULE, check_label, check_all=check_all_labels, minLength=1), "a list of strings", distinct=True
)
_UPDATED = text("a string such as 2025-03-09T12:00:00Z", str)
_EXPIRES = text(EXPIRY_RULE, parse_expiry, _written_time, format="date-time")

_PIECE_SIZE = whole_number(
    f"a whole number of bytes from {MIN_PIECE_BYTES} to {MAX_PIECE_BYTES}", MAX_PIECE_BYTES, minimum=MIN_PIECE_BYTES
)
_PIECE_DIGEST = text(PIECE_DIGEST_RULE, check_piece_digest, pattern="^[0-9A-Fa-f]{64}$")

PIECES = Object(
    PieceDigests,
    (
        Key("size", _PIECE_SIZE, "Length of each piece but the last, in bytes.", needed=True),
        Key(
            "sha256",
            list_of(_PIECE_DIGEST, "a list of digests"),
            "SHA-256 of each piece, in order: 64 hex digits. Together, the pieces are as long as the asset's size.",
            needed=True,
        ),
    ),
    rule="an object with size and sha256",
    name="Pieces",
    title="Pieces",
    description="Digests of the pieces of the content, so that damage costs a piece and not the whole.",
)

STAND_IN = Object(
    StandIn,
    (
        Key("url", _URL, "Address of the stand-in.", needed=True),
        Key("checksum", _CHECKSUM, "Checksum of the stand-in, as for the asset. null: not pinned.", explicit=True),
        Key("size", _SIZE, "Size of the stand-in in bytes. null: not known.", explicit=True),
        Key("fallbackUrls", _URLS, "Further addresses of the stand-in, tried when the first fails."),
    ),
    rule="an object with url, checksum and size",
    name="StandInEntry",
    title="Stand-in",
    description="A small stand-in for tests and development, in minimal/<localPath>.",
)

ASSET = Object(
    Asset,
    (
        Key("id", _ID, "Unique name of the asset on the command line and in the API.", needed=True),
        Key("name", _TEXT, "Name for people. Default: the id.", same_as="id"),
        Key("description", _TEXT, "What the asset is for."),
        Key("url", _URL, "Primary address: http, https, in a bucket or on a Git LFS server.", needed=True),
        Key("fallbackUrls", _URLS, "Mirrors of the same content, in order of preference.", explicit=True),
        Key(
            "localPath",
            _LOCAL_PATH,
            "Path of the file, relative to the assets folder, with / between folders. It must be safe and distinct on "
            "Linux, macOS and Windows.",
            needed=True,
        ),
        Key(
            "checksum",
            _CHECKSUM,
            "Checksum of the content: 64 hex digits (SHA-256), or sha256:, sha512: or blake2b: and the digits. null: "
            "not pinned, so a download cannot be verified; `grym-fetch pin` records it.",
            explicit=True,
        ),
        Key("size", _SIZE, "Size in bytes. null: not known.", explicit=True),
        Key("version", _VERSION, "Version of the asset, for people."),
        Key("required", _FLAG, "Whether a sync fetches this asset when no assets are chosen.", explicit=True),
        Key("tags", _TAGS, "Groups to choose assets by. `essential` marks what --minimal fetches.", explicit=True),
        Key(
            "extract",
            _FLAG,
            "Whether the file is an archive (.zip, .tar, .tar.gz, .tgz, .tar.zst) to unpack next to itself, into a "
            "folder named like it without that ending.",
        ),
        Key("metadata", any_object("an object"), "Anything you like. It is kept and not used."),
        Key("minimal", STAND_IN, "A small stand-in for the asset."),
        Key(
            "source",
            _SOURCE,
            "The short address that the asset was added from, such as hf://org/repo@main/file: what is asked for newer "
            "versions.",
        ),
        Key(
            "pieces",
            PIECES,
            "Digests of the pieces of the content, which need `size`. `grym-fetch pin --pieces` records them.",
        ),
    ),
    rule="an object with at least id, url and localPath",
    name="AssetEntry",
    title="Asset",
    description="One file to make present and verified.",
)

ENTRIES = list_of(ASSET, "a list of assets")

MANIFEST = Object(
    Manifest,
    (
        Key(
            "version",
            _VERSION,
            "Version of this list of assets. Numbers joined by dots must not decrease; any other text is a label.",
        ),
        Key("updated", _UPDATED, "When the list was last changed, in ISO 8601."),
        Key("expires", _EXPIRES, "When this list expires, in RFC 3339. null: never."),
        Key(
            "assets",
            ENTRIES,
            "The assets. Ids and local paths must be distinct.",
            needed=True,
        ),
    ),
    rule="an object with the list assets",
    name="ManifestFile",
    title="grym-fetch manifest (assets.json)",
    description="The assets of a project: where each comes from, where it lies, and what it must be.",
)


def manifest_json_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of ``assets.json``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **MANIFEST.definition,
        "$defs": {part.name: part.definition for part in (ASSET, STAND_IN, PIECES)},
    }
