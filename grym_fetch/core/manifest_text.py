"""``assets.json`` as text that is edited in place, so that what a person wrote stays as it was written.

Rules: an edit replaces the characters of what it changes and no others. New text follows its neighbours: their indent,
line ends, spaces after commas and colons, and lists on one line or several. It is escaped only if the file is all
ASCII. The text must be that of a good manifest (`parse_manifest`); the caller checks whether it still is one after the
edit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

from grym_fetch.core.manifest import Asset
from grym_fetch.core.manifest_schema import ASSET

_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class _Part:
    """One item of a list, or one member of an object: where its key begins and ends, and its value."""

    begin: int
    key_stop: int
    start: int
    stop: int
    key: str = ""


@dataclass(frozen=True, slots=True)
class _Group:
    """A list or an object, from its opening bracket to just after its closing one."""

    start: int
    stop: int
    parts: tuple[_Part, ...]

    def find(self, key: str) -> _Part | None:
        """The member with this key."""
        return next((part for part in self.parts if part.key == key), None)


@dataclass(frozen=True, slots=True)
class _Style:
    """How an object is written. ``inner`` and ``outer`` indent its members and its closing bracket, None: one line."""

    outer: str
    inner: str | None
    unit: str
    newline: str
    comma: str
    colon: str
    padding: str


@dataclass(frozen=True, slots=True)
class Setting:
    """New values for keys of the entry at ``index``, or of its stand-in."""

    index: int
    values: Mapping[str, object]
    stand_in: bool = False


@dataclass(frozen=True, slots=True)
class ManifestText:
    """The text of a manifest. Immutable: every edit returns another one."""

    text: str
    has_bom: bool
    is_ascii: bool

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Take the bytes of a file that `parse_manifest` has accepted."""
        text = data.removeprefix(_BOM).decode("utf-8")
        return cls(text, data.startswith(_BOM), text.isascii())

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        return (_BOM if self.has_bom else b"") + self.text.encode("utf-8", "surrogatepass")

    # -- edits ------------------------------------------------------------------------------------------------------

    def add(self, *assets: Asset) -> Self:
        """Append entries to the assets."""
        group = self._assets()
        if not assets:
            return self
        if group.parts:
            last = group.parts[-1]
            joint, style = self._joint(group), self._style(self._group(last.start))
            added = "".join(joint + self._written(ASSET.write(asset), style) for asset in assets)
            return self._spliced(last.stop, last.stop, added)
        first, *others = assets
        style = self._style(self._top())
        if style.inner is None:
            text = f"[{self._written(ASSET.write(first), style)}]"
        else:
            indent = style.inner + style.unit
            below = replace(style, outer=indent, inner=indent + style.unit)
            text = style.newline.join(("[", indent + self._written(ASSET.write(first), below), f"{style.inner}]"))
        return self._spliced(group.start, group.stop, text).add(*others)

    def set(self, index: int, values: Mapping[str, object], *, stand_in: bool = False) -> Self:
        """Set keys of the entry at ``index``, or of its stand-in. A new key is added at the end."""
        return self.set_all([Setting(index, values, stand_in)])

    def set_all(self, settings: Iterable[Setting]) -> Self:
        """`set` many entries at once, which takes hardly longer than setting one."""
        entries = self._assets().parts
        result = self
        # From the end, so that the places of those before stay what they are.
        for setting in sorted(settings, key=lambda each: (each.index, each.stand_in), reverse=True):
            start = entries[setting.index].start
            # The entry's own end may have moved by a setting of its stand-in.
            _, stop = _decode(result.text, start)
            result = result._spliced(start, stop, self._with_values(result.text[start:stop], setting))
        return result

    def _with_values(self, entry: str, setting: Setting) -> str:
        """The text of one entry with its keys set."""
        result: ManifestText = replace(self, text=entry)
        for key, value in setting.values.items():
            group = result._group(0)
            if setting.stand_in:
                minimal = group.find("minimal")
                assert minimal is not None, "an asset with a stand-in has this key"
                group = result._group(minimal.start)
            result = result._with_member(group, key, value, group.parts[-1])
        return result.text

    def remove(self, index: int) -> Self:
        """Remove the entry at ``index``, and the comma that joins it to its neighbour."""
        group = self._assets()
        parts = group.parts
        if len(parts) == 1:
            return self._spliced(group.start, group.stop, "[]")
        if index == len(parts) - 1:
            return self._spliced(parts[index - 1].stop, parts[index].stop, "")
        return self._spliced(parts[index].begin, parts[index + 1].begin, "")

    def touch(self, now: float, *, insert: bool = False) -> Self:
        """Set ``updated`` to ``now`` (seconds since the epoch). If the key is missing, add it only with ``insert``."""
        top = self._top()
        there = top.find("updated")
        if there is None and not insert:
            return self
        precise = there is not None and "." in self.text[there.start : there.stop]
        moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds" if precise else "seconds")
        return self._with_member(top, "updated", moment.replace("+00:00", "Z"), top.find("version"))

    # -- looking ----------------------------------------------------------------------------------------------------

    def _top(self) -> _Group:
        return self._group(self._after_space(0))

    def _assets(self) -> _Group:
        assets = self._top().find("assets")
        assert assets is not None, "every good manifest has this key"
        return self._group(assets.start)

    def _after_space(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        assert match is not None, "nothing at all matches, too"
        return match.end()

    def _group(self, start: int) -> _Group:
        is_object = self.text[start] == "{"
        parts = []
        at = self._after_space(start + 1)
        while self.text[at] not in "]}":
            begin, key_stop, key = at, at, ""
            if is_object:
                key, key_stop = _decode(self.text, at)
                at = self._after_space(self._after_space(key_stop) + 1)
            _, stop = _decode(self.text, at)
            parts.append(_Part(begin, key_stop, at, stop, key))
            at = self._after_space(stop)
            if self.text[at] == ",":
                at = self._after_space(at + 1)
        return _Group(start, at + 1, tuple(parts))

    def _joint(self, group: _Group) -> str:
        """What joins two parts: a comma and white space."""
        parts = group.parts
        if len(parts) > 1:
            return self.text[parts[-2].stop : parts[-1].begin]
        if lead := self.text[group.start + 1 : parts[0].begin]:
            return "," + lead
        return ", " if '": ' in self.text[group.start : group.stop] else ","

    def _style(self, group: _Group) -> _Style:
        """How an object is written. It must have a member."""
        first, last = group.parts[0], group.parts[-1]
        lead, tail = self.text[group.start + 1 : first.begin], self.text[last.stop : group.stop - 1]
        colon = self.text[first.key_stop : first.start]
        comma = self._joint(group)
        if "\n" not in lead:
            comma = ", " if " " in comma else ","
            return _Style("", None, "  ", "\n", comma, colon, lead)
        inner = lead.rpartition("\n")[2]
        outer = tail.rpartition("\n")[2] if "\n" in tail else inner[: len(inner) // 2]
        is_deeper = inner.startswith(outer) and inner != outer
        unit = inner.removeprefix(outer) if is_deeper else "  "
        return _Style(outer, inner, unit, "\r\n" if "\r\n" in lead else "\n", ", ", colon, "")

    # -- writing ----------------------------------------------------------------------------------------------------

    def _spliced(self, start: int, stop: int, text: str) -> Self:
        return replace(self, text=self.text[:start] + text + self.text[stop:])

    def _with_member(self, group: _Group, key: str, value: object, before: _Part | None) -> Self:
        """Set a member. A new one is added after the member ``before``, or first if that is None."""
        if (there := group.find(key)) is not None:
            return self._spliced(there.start, there.stop, self._json(value))
        first = group.parts[0]
        member = self._json(key) + self.text[first.key_stop : first.start] + self._json(value)
        if before is None:
            return self._spliced(first.begin, first.begin, member + self._joint(group))
        return self._spliced(before.stop, before.stop, self._joint(group) + member)

    def _json(self, value: object, style: _Style | None = None) -> str:
        """A value on one line."""
        separators = (style.comma, style.colon) if style is not None else (", ", ": ")
        return json.dumps(value, ensure_ascii=self.is_ascii, separators=separators)

    def _written(self, entry: Mapping[str, object], style: _Style) -> str:
        if style.inner is None:
            members = style.comma.join(f"{self._json(k)}{style.colon}{self._json(v, style)}" for k, v in entry.items())
            return f"{{{style.padding}{members}{style.padding}}}"
        lines = [
            f"{style.inner}{self._json(key)}{style.colon}{self._expanded(key, value, style)}"
            for key, value in entry.items()
        ]
        joined = f",{style.newline}".join(lines)
        return f"{{{style.newline}{joined}{style.newline}{style.outer}}}"

    def _expanded(self, key: str, value: object, style: _Style) -> str:
        """A value inside an object of several lines."""
        if not value or not isinstance(value, list | dict) or (isinstance(value, list) and self._is_flat(key)):
            return self._json(value)
        separators = (",", style.colon)
        text = json.dumps(value, ensure_ascii=self.is_ascii, indent=style.unit, separators=separators)
        return text.replace("\n", style.newline + (style.inner or ""))

    def _is_flat(self, key: str) -> bool:
        """Whether lists under this key are on one line here; if it has none, whether other lists are."""
        others = True
        for name, text in self._lists():
            if name == key:
                return "\n" not in text
            others = "\n" not in text
        return others

    def _lists(self) -> Iterator[tuple[str, str]]:
        """The key and the text of each list that is not empty, starting from the last entry."""
        for entry in self._assets().parts[: -_SAMPLED_ENTRIES - 1 : -1]:
            for part in self._group(entry.start).parts:
                text = self.text[part.start : part.stop]
                if text.startswith("[") and text[1:-1].strip():
                    yield part.key, text


_SAMPLED_ENTRIES = 50
"""How many of the last entries show how lists are written."""
