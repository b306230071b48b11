"""What takes the place of a file that was moved out: ``<file>.asset-ref``, a text for people and for `restore`.

Rules: pure. A placeholder stands for the file next to it, whatever path is written in it; so it may be moved with
``git mv``, and can never point out of the repository.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from grym_fetch.core.command_lines import command_line
from grym_fetch.core.digest import Checksum
from grym_fetch.core.paths import PLACEHOLDER_SUFFIX

SUFFIX = PLACEHOLDER_SUFFIX
MAX_BYTES = 64 * 1024
_HEAD = "grym-fetch asset reference, version 1"
_SIZE = re.compile(r"[0-9]{1,19}")
_COLUMN = 8
"""The column where values begin, so that a value may itself begin with a space."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placeholder:
    """``original_path`` is relative to the repository's root, ``storage_path`` to the external folder.

    ``size`` in bytes, ``moved_on`` in ISO 8601. ``external_dir`` is the path of the external folder, relative to the
    root, if it was not the usual one; it is only for people and is not read back.
    """

    id: str
    original_path: str
    storage_path: str
    size: int
    checksum: Checksum
    moved_on: str
    external_dir: str | None = None

    def encode(self) -> bytes:
        """Return the text of the file."""
        where = () if self.external_dir is None else ("--external-assets-dir", self.external_dir)
        command = command_line("grym-fetch", "restore", *where, names=(self.original_path,))
        return (
            f"{_HEAD}\n\n"
            "A large file was moved out of this repository; this text is in its place.\n\n"
            f"id:     {self.id}\n"
            f"path:   {self.original_path}\n"
            f"size:   {self.size}\n"
            f"sha256: {self.checksum.hexdigest}\n"
            f"moved:  {self.moved_on}\n"
            f"stored: {self.storage_path}\n\n"
            "To bring it back, run this in the root of the repository:\n\n"
            f"    {command}\n"
        ).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the text of a placeholder. Raises `ValueError` if it is not one; its message goes on after "it …"."""
        if len(data) > MAX_BYTES:
            raise ValueError("is too long for a placeholder")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("is not UTF-8") from None
        lines = text.replace("\r\n", "\n").split("\n")
        if any("\r" in line for line in lines):
            raise ValueError("has a carriage return in the middle of a line")
        if lines[0] != _HEAD:
            raise ValueError(f"does not begin with {_HEAD!r}")
        values = {line[:_COLUMN].rstrip(): line[_COLUMN:] for line in lines}
        try:
            if not _SIZE.fullmatch(values["size:"]):
                raise ValueError("has a size that is not a number of bytes")
            return cls(
                id=values["id:"],
                original_path=values["path:"],
                storage_path=values["stored:"],
                size=int(values["size:"]),
                checksum=Checksum.parse("sha256:" + values["sha256:"]),
                moved_on=values["moved:"],
            )
        except KeyError as missing:
            raise ValueError(f"has no line {missing.args[0]}") from None


def is_damaged(data: bytes) -> bool:
    """Whether this was a placeholder once, such as one with the marks of a merge; or is empty, as after a power cut."""
    return not data.strip() or _HEAD.encode() in data


def asset_id(path: str) -> str:
    """Return the id for a file: its name without extension, in characters that are safe everywhere."""
    name = path.rpartition("/")[2]
    stem = name.rpartition(".")[0] or name
    return re.sub(r"[^A-Za-z0-9._]+", "-", stem).strip("-._").lower() or "asset"


def distinct_id(path: str, taken: frozenset[str] | set[str]) -> str:
    """`asset_id`, made distinct by as many folders in front as needed, or by a number at the end."""
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        candidate = asset_id("-".join(parts[-count:]))
        if candidate not in taken:
            return candidate
    number = next(number for number in range(2, len(taken) + 3) if f"{candidate}-{number}" not in taken)
    return f"{candidate}-{number}"
