"""The short cut to assets: entries that are plainly right, as nearly all are, are read without pydantic.

Importing it and building the models takes 0.1 s, a third of a run that finds every file in place.

Rules: this is no second schema. It accepts only what the models of `grym_fetch.core.manifest_schema` accept, with the
same checks of single values, and with the same result. Whatever is odd about an entry, wrong or merely rare (an unknown
key, a number as version), is left to the models, which also know how to say it: the answer is None then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from grym_fetch.core.digest import Checksum
from grym_fetch.core.freshness import parse_expiry
from grym_fetch.core.manifest import Asset, Manifest, StandIn
from grym_fetch.core.manifest_values import MAX_FALLBACK_URLS, MAX_SIZE, check_id, check_label, check_url
from grym_fetch.core.paths import check_local_path

T = TypeVar("T")

_STAND_IN_KEYS = frozenset({"url", "checksum", "size", "fallbackUrls"})
_ASSET_KEYS = _STAND_IN_KEYS | {
    "id", "name", "description", "localPath", "version", "required", "tags", "metadata", "minimal", "extract",
}  # fmt: skip


def read_plain_head(raw: Mapping[str, object]) -> Manifest | None:
    """Return what stands beside ``assets``, as a manifest without assets; None if the models must look at it."""
    schema = {key: value for key, value in raw.items() if key == "$schema"}  # for editors
    if not raw.keys() <= {"version", "updated", "expires", "assets", *schema}:
        return None
    try:
        get = raw.get
        expires = _maybe(str, get("expires"))
        return Manifest(
            _maybe(str, get("version")),
            _maybe(str, get("updated")),
            None if expires is None else parse_expiry(expires),
            extra=schema,
        )
    except (TypeError, ValueError):
        return None


def read_plain_asset(entry: object) -> Asset | None:
    """Return the asset that an entry of ``assets`` lists; None if the models must look at it."""
    try:
        return _asset(_keys(entry, _ASSET_KEYS))
    except (KeyError, TypeError, ValueError):
        return None


def _asset(entry: dict[str, object]) -> Asset:
    get = entry.get
    asset_id = check_id(_is(str, entry["id"]))
    minimal = get("minimal")
    return Asset(
        id=asset_id,
        url=_url(entry["url"]),
        local_path=check_local_path(_is(str, entry["localPath"])),
        name=_maybe(str, get("name")) or asset_id,
        description=_maybe(str, get("description")) or "",
        fallback_urls=_urls(get("fallbackUrls")),
        checksum=_checksum(get("checksum")),
        size=_size(get("size")),
        version=_maybe(str, get("version")),
        required=_maybe(bool, get("required")) or False,
        tags=tuple(dict.fromkeys(check_label(_is(str, tag)) for tag in _maybe(list, get("tags")) or ())),
        metadata=_maybe(dict, get("metadata")) or {},
        minimal=None if minimal is None else _stand_in(_keys(minimal, _STAND_IN_KEYS)),
        extract=_maybe(bool, get("extract")) or False,
    )


def _stand_in(entry: dict[str, object]) -> StandIn:
    get = entry.get
    return StandIn(_url(entry["url"]), _checksum(get("checksum")), _size(get("size")), _urls(get("fallbackUrls")))


def _keys(value: object, known: frozenset[str]) -> dict[str, object]:
    entry = _is(dict, value)
    if not entry.keys() <= known:
        raise KeyError
    return entry


def _is(kind: type[T], value: object) -> T:
    # The very type, since True is an int.
    if type(value) is not kind:
        raise TypeError
    return value


def _maybe(kind: type[T], value: object) -> T | None:
    return None if value is None else _is(kind, value)


def _url(value: object) -> str:
    return check_url(_is(str, value))


def _urls(value: object) -> tuple[str, ...]:
    urls = _maybe(list, value) or []
    if len(urls) > MAX_FALLBACK_URLS:
        raise ValueError
    return tuple(_url(url) for url in urls)


def _checksum(value: object) -> Checksum | None:
    return None if value is None else Checksum.parse(_is(str, value))


def _size(value: object) -> int | None:
    size = _maybe(int, value)
    if size is not None and not 0 <= size <= MAX_SIZE:
        raise ValueError
    return size
