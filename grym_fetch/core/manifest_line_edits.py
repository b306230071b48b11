"""Edits of an ``assets.jsonl``, line by line: a line that is not edited stays as it is, to the byte.

Rules: edits are noted first, by the number of the entry, and made when the lines come by. A line that is edited changes
as `ManifestText` would change that entry. A new line is written like the last one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, Self

from grym_fetch.core.manifest import Asset
from grym_fetch.core.manifest_schema import ASSET
from grym_fetch.core.manifest_text import ManifestText, Setting

_BEFORE, _AFTER = b'{"assets":[', b"]}"


class ManifestEdits(Protocol):
    """A manifest's text, or edits to it. Immutable: every edit returns another one."""

    def add(self, *assets: Asset) -> Self:
        """Append entries."""

    def set_all(self, settings: Iterable[Setting]) -> Self:
        """Set keys of entries, by their number in the list."""

    def remove(self, index: int) -> Self:
        """Remove an entry, by its number in the list."""

    def touch(self, now: float, *, insert: bool = False) -> Self:
        """Set ``updated`` to ``now`` (seconds since the epoch). If the key is missing, add it only with ``insert``."""


@dataclass(frozen=True, slots=True)
class LineEdits:
    """Edits to make. Numbers are those of the entries before any edit."""

    added: tuple[Asset, ...] = ()
    settings: tuple[Setting, ...] = ()
    removed: frozenset[int] = frozenset()
    touched: float | None = None
    is_inserted: bool = False

    def add(self, *assets: Asset) -> Self:
        """Append entries."""
        return replace(self, added=self.added + assets)

    def set_all(self, settings: Iterable[Setting]) -> Self:
        """Set keys of entries."""
        return replace(self, settings=(*self.settings, *settings))

    def remove(self, index: int) -> Self:
        """Remove an entry."""
        return replace(self, removed=self.removed | {index})

    def touch(self, now: float, *, insert: bool = False) -> Self:
        """Set ``updated`` on the first line."""
        return replace(self, touched=now, is_inserted=insert)

    def apply(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the lines of the file with all edits made. ``lines`` are those of a good file, with their ends."""
        settings: dict[int, list[Setting]] = {}
        for each in self.settings:
            settings.setdefault(each.index, []).append(replace(each, index=0))
        waiting = iter(lines)
        last = self._head(next(waiting))
        sample, number = b"", -1
        for line in waiting:
            yield last
            last = line
            if line.isspace():
                continue
            number += 1
            if number in self.removed:
                last = b""
                continue
            if number in settings:
                last = _edited(line, settings[number])
            sample = last
        if self.added and last and not last.endswith(b"\n"):
            last += b"\n"
        yield last
        for asset in self.added:
            yield _written(asset, sample)

    def _head(self, line: bytes) -> bytes:
        if self.touched is None:
            return line
        body, end = _without_end(line)
        text = ManifestText.read(body)
        if text.text.strip() == "{}":
            text = replace(text, text='{"version": null}') if self.is_inserted else text
        return (text if text.text.strip() == "{}" else text.touch(self.touched, insert=self.is_inserted)).encode() + end


def _without_end(line: bytes) -> tuple[bytes, bytes]:
    body = line.rstrip(b"\r\n")
    return body, line[len(body) :]


def _edited(line: bytes, settings: list[Setting]) -> bytes:
    body, end = _without_end(line)
    text = ManifestText.read(_BEFORE + body + _AFTER).set_all(settings).encode()
    return text[len(_BEFORE) : -len(_AFTER)] + end


def _written(asset: Asset, sample: bytes) -> bytes:
    body, end = _without_end(sample)
    if not body:
        return json.dumps(ASSET.write(asset), ensure_ascii=False).encode() + b"\n"
    text = ManifestText.read(_BEFORE + body + _AFTER).add(asset).encode()
    return text[len(_BEFORE) + len(body) : -len(_AFTER)].lstrip(b", \t") + (end or b"\n")
