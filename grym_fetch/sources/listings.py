"""Lists of files that other tools write and read: ``SHA256SUMS``, pooch registries, aria2 and curl lists, DVC files.

Rules: pure; text in, values out, and back. A line that is not understood is refused with its number, never skipped: a
partly read list would be taken for the whole. Other options of aria2 and other keys of DVC are passed over. If a format
cannot express an asset's checksum, the asset is refused, not written without it. A path is judged when it becomes an
asset.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import UnknownSource
from grym_fetch.core.manifest import Asset
from grym_fetch.core.nearest import as_path, nearest_names
from grym_fetch.core.stated import StatedDigest
from grym_fetch.sources.metalink import read_metalink, web_addresses, write_metalink
from grym_fetch.sources.protocol import ListedFile

T = TypeVar("T")

MAX_LIST_BYTES = 16 * 1024 * 1024
MAX_LISTED = 100_000

_GNU = re.compile(r"(?P<escaped>\\?)(?P<hex>[0-9a-fA-F]{32,128}) [ *](?P<name>.+)")
_BSD = re.compile(r"(?P<kind>MD5|SHA1|SHA256|SHA512|BLAKE2b) \((?P<name>.+)\) = (?P<hex>[0-9a-fA-F]{32,128})")
_ARMOR = re.compile(r"-----(?:BEGIN|END) PGP [A-Z ]+-----")
_BY_DIGITS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
_CURL = re.compile(r'(?P<key>[A-Za-z-]+)\s*(?:[=:]\s*|\s)(?P<value>"(?:[^"\\]|\\.)*"|\S+)')
_DVC_LINE = re.compile(r"(?P<indent> *)(?P<dash>- )?(?P<key>[A-Za-z0-9_]+):(?: (?P<value>.*))?")


def digest_of(kind: str, hexdigest: str) -> tuple[Checksum | None, StatedDigest | None]:
    """Return a digest as a checksum if a manifest accepts it, else as a stated digest. Raises `ValueError`."""
    kind = kind.lower().replace("-", "")
    if kind in ("md5", "sha1"):
        return None, StatedDigest.parse(f"{kind}:{hexdigest}")
    return Checksum.parse(f"{kind}:{hexdigest}"), None


# --- SHA256SUMS and the like: coreutils, BSD, clear-signed


def read_sums(text: str) -> list[ListedFile]:
    """Read the output of ``sha256sum``, ``md5sum`` and so on, with or without a PGP signature around it."""
    found = []
    is_signature = is_head = False
    for number, line in _lines(text):
        if _ARMOR.fullmatch(line.rstrip()):
            is_signature = "SIGNATURE" in line and "BEGIN" in line
            is_head = "MESSAGE" in line
            continue
        is_head = is_head and bool(line.strip())
        if is_signature or is_head or not line.strip() or line.startswith("#"):
            continue
        match = _GNU.fullmatch(line) or _BSD.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} is not a checksum and a name")
        digits, name = match["hex"], match["name"]
        groups = match.groupdict()
        if groups.get("escaped"):
            name = re.sub(r"\\(.)", lambda found: {"n": "\n", "r": "\r"}.get(found[1], found[1]), name)
        kind = groups.get("kind") or _BY_DIGITS.get(len(digits))
        if kind is None:
            raise ValueError(f"line {number} has a digest of {len(digits)} digits, of no kind that is known")
        checksum, stated = _at(number, digest_of, kind, digits)
        found.append(ListedFile(name.removeprefix("./"), checksum=checksum, stated=stated))
    return found


def write_sums(assets: Iterable[Asset]) -> str:
    """Write a list for ``sha256sum --check``, run in the assets folder."""
    return "".join(f"{_sha256(asset)}  {asset.local_path}\n" for asset in assets)


def _sha256(asset: Asset) -> str:
    if asset.checksum is None or asset.checksum.algorithm != "sha256":
        raise ValueError("has no SHA-256")
    return asset.checksum.hexdigest


# --- pooch


def read_pooch(text: str) -> list[ListedFile]:
    """Read a pooch registry: each line has a name, a hash, and perhaps an address."""
    found = []
    for number, line in _lines(text):
        parts = _at(number, shlex.split, line, True)
        if not parts:
            continue
        if len(parts) not in (2, 3):
            raise ValueError(f"line {number} is not a name, a hash and perhaps an address")
        kind, colon, digits = parts[1].rpartition(":")
        checksum, stated = _at(number, digest_of, kind if colon else "sha256", digits)
        found.append(ListedFile(parts[0], tuple(parts[2:]), checksum=checksum, stated=stated))
    return found


def write_pooch(assets: Iterable[Asset]) -> str:
    """Write a pooch registry, with the address of each asset."""
    return "".join(
        f"{shlex.quote(asset.local_path)} {_any(asset)} {shlex.quote(web_addresses(asset)[0])}\n" for asset in assets
    )


def _any(asset: Asset) -> Checksum:
    if asset.checksum is None:
        raise ValueError("has no checksum")
    return asset.checksum


# --- aria2


def read_aria2(text: str) -> list[ListedFile]:
    """Read an aria2 input file: the addresses of one file on a line, its options indented below."""
    entries: list[tuple[int, tuple[str, ...], dict[str, str]]] = []
    for number, line in _lines(text):
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith((" ", "\t")):
            entries.append((number, tuple(url for url in line.split("\t") if url.strip()), {}))
        elif entries:
            key, is_option, value = line.strip().partition("=")
            if not is_option:
                raise ValueError(f"line {number} is not an option and its value")
            entries[-1][2].setdefault(key, value)
        else:
            raise ValueError(f"line {number} has an option before any address")
    found = []
    for number, urls, options in entries:
        checksum = stated = None
        if "checksum" in options:
            kind, _, digits = options["checksum"].partition("=")
            checksum, stated = _at(number, digest_of, kind, digits)
        name = options.get("out") or _name_in(urls[0])
        folder = options.get("dir", "").strip("/")
        found.append(ListedFile(f"{folder}/{name}" if folder not in ("", ".") else name, urls, None, checksum, stated))
    return found


def write_aria2(assets: Iterable[Asset]) -> str:
    """Write an aria2 input file (``aria2c --input-file``), run in the assets folder."""
    written = []
    for asset in assets:
        lines = ["\t".join(web_addresses(asset)), f"  out={asset.local_path}"]
        if asset.checksum is not None:
            if asset.checksum.algorithm == "blake2b":
                raise ValueError(_NO_BLAKE.format(asset.id))
            lines.append(f"  checksum={_dashed(asset.checksum)}={asset.checksum.hexdigest}")
        written.append("\n".join(lines) + "\n")
    return "".join(written)


_NO_BLAKE = "{}: has a BLAKE2b checksum, which this format cannot say"


def _dashed(checksum: Checksum) -> str:
    return {"sha256": "sha-256", "sha512": "sha-512"}[checksum.algorithm]


# --- curl


def read_curl(text: str) -> list[ListedFile]:
    """Read a curl config file: pairs of ``url`` and ``output``. It has no checksums."""
    urls: list[str] = []
    outputs: list[str | None] = []
    for number, line in _lines(text):
        line = line.strip().lstrip("-")
        if not line or line.startswith("#"):
            continue
        match = _CURL.fullmatch(line)
        key, value = (match["key"], _unquoted(match["value"])) if match is not None else (line, "")
        if key == "url" and value:
            urls.append(value)
        elif key in ("output", "o") and value:
            outputs.append(value)
        elif key in ("remote-name", "O"):
            outputs.append(None)
        elif key in _CURL_HARMLESS:
            continue
        else:
            raise ValueError(f"line {number} has an option that is not understood here")
    if len(outputs) > len(urls):
        raise ValueError("there are more outputs than addresses")
    names = [output or _name_in(url) for url, output in zip(urls, [*outputs, *[None] * len(urls)], strict=False)]
    return [ListedFile(name, (url,)) for url, name in zip(urls, names, strict=True)]


_CURL_HARMLESS = frozenset(
    {"fail", "location", "L", "f", "create-dirs", "parallel", "Z", "next", "silent", "s", "show-error", "S", "retry"}
)


def write_curl(assets: Iterable[Asset]) -> str:
    """Write a curl config file (``curl --config``), run in the assets folder. It cannot verify anything."""
    lines = ["fail", "location", "create-dirs"]
    for asset in assets:
        lines += [f"url = {_in_quotes(web_addresses(asset)[0])}", f"output = {_in_quotes(asset.local_path)}"]
    return "\n".join(lines) + "\n"


def _in_quotes(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t", "r": "\r"}.get(found[1], found[1]), text[1:-1])


# --- DVC: only the few lines of YAML that it writes


def read_dvc(text: str) -> list[ListedFile]:
    """Read a ``.dvc`` file. An import (``dvc import-url``) has the address; otherwise it must be given."""
    lists: dict[str, list[dict[str, str]]] = {"outs": [], "deps": []}
    section: list[dict[str, str]] | None = None
    for number, line in _lines(text):
        if not line.strip() or line.startswith("#"):
            continue
        match = _DVC_LINE.fullmatch(line.rstrip())
        if match is None:
            raise ValueError(f"line {number} is not of a .dvc file")
        if not match["indent"] and not match["dash"]:
            section = lists.get(match["key"])
            continue
        if section is None:
            continue
        if match["dash"]:
            section.append({})
        if not section:
            raise ValueError(f"line {number} is not of a .dvc file")
        section[-1].setdefault(match["key"], (match["value"] or "").strip("'\""))
    urls = [dep["path"] for dep in lists["deps"] if dep.get("path", "").startswith(("http://", "https://"))]
    found = []
    for out in lists["outs"]:
        digits, size = out.get("md5", ""), out.get("size", "")
        if digits.endswith(".dir"):
            raise ValueError("this is a folder, whose files only DVC knows")
        if "path" not in out:
            raise ValueError("an output has no path")
        stated = StatedDigest.parse(f"md5:{digits}") if digits else None
        known = tuple(urls) if len(lists["outs"]) == 1 else ()
        found.append(ListedFile(out["path"], known, int(size) if size.isdecimal() else None, None, stated))
    return found


# --- all formats


@dataclass(frozen=True, slots=True)
class Format:
    """A format of lists. ``write`` is None for one that can only be read."""

    read: Callable[[str], list[ListedFile]]
    write: Callable[[Iterable[Asset]], str] | None = None


FORMATS: Mapping[str, Format] = {
    "metalink": Format(read_metalink, write_metalink),
    "aria2": Format(read_aria2, write_aria2),
    "curl": Format(read_curl, write_curl),
    "sha256sums": Format(read_sums, write_sums),
    "pooch": Format(read_pooch, write_pooch),
    "dvc": Format(read_dvc),
}


class UnknownFormat(ValueError):
    """No format fits a list, and none was named."""


def guess_format(name: str, text: str) -> str:
    """Return the format of a file, judging by its name and its first lines. Raises `UnknownFormat` if none fits."""
    lower = name.lower()
    if lower.endswith((".meta4", ".metalink")) or text.lstrip("\ufeff \t\r\n").startswith("<"):
        return "metalink"
    if lower.endswith(".dvc"):
        return "dvc"
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    if _GNU.fullmatch(first) or _BSD.fullmatch(first) or _ARMOR.fullmatch(first.rstrip()):
        return "sha256sums"
    if first.startswith(("http://", "https://", "ftp://")):
        return "aria2"
    if re.match(r"-*(?:url|output|fail|location|create-dirs|parallel)\b", first):
        return "curl"
    if re.search(r"\s(?:\w+:)?[0-9a-fA-F]{32,128}(?:\s|$)", first):
        return "pooch"
    raise UnknownFormat("its format is not known")


def read_list(data: bytes, name: str, format_name: str | None = None) -> list[ListedFile]:
    """Read a list. Raises `ValueError`, with the line if it is known."""
    if len(data) > MAX_LIST_BYTES:
        raise ValueError(f"is {len(data)} bytes long; at most {MAX_LIST_BYTES} are allowed")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    found = FORMATS[format_name or guess_format(name, text)].read(text)
    if not found:
        raise ValueError("names no files")
    if len(found) > MAX_LISTED:
        raise ValueError(f"names {len(found)} files; at most {MAX_LISTED} are allowed")
    return found


def write_list(assets: Sequence[Asset], format_name: str) -> str:
    """Write these assets. Raises `ValueError` naming those that the format cannot express."""
    write = FORMATS[format_name].write
    assert write is not None, "asked for formats that can be written only"
    wrong = []
    for asset in assets:
        try:
            write([asset])
        except ValueError as error:
            wrong.append(f"{asset.id}: {str(error).removeprefix(f'{asset.id}: ')}")
    if wrong:
        raise ValueError("; ".join(wrong[:10]) + (f"; and {len(wrong) - 10} more" if len(wrong) > 10 else ""))
    return write(assets)


def digest_for(name: str, data: bytes, list_name: str) -> ListedFile:
    """Return what a list of checksums says about one file. A digest without a name is taken to be the file's.

    Raises `ValueError` if it is not such a list or contradicts itself, `UnknownSource` if the file is not in it.
    """
    lone = data.strip()
    if len(lone) in _BY_DIGITS and re.fullmatch(rb"[0-9a-fA-F]+", lone):
        checksum, stated = digest_of(_BY_DIGITS[len(lone)], lone.decode())
        return ListedFile(name, checksum=checksum, stated=stated)
    found = read_list(data, list_name)
    same = [file for file in found if file.name.rpartition("/")[2] == name and (file.checksum or file.stated)]
    if not same:
        near = nearest_names(name, [file.name for file in found], forms=as_path)
        raise UnknownSource(list_name, f"does not list {name!r}", near)
    best = [file for file in same if file.checksum is not None] or same
    if len({(file.checksum, file.stated) for file in best}) > 1:
        raise ValueError(f"has several digests for {name!r}")
    return best[0]


def joined(base: str, file: ListedFile) -> str:
    """The address, below ``base``, of a file in a list that has only names."""
    return f"{base.rstrip('/')}/{quote(file.name)}"


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines with their numbers; only a newline ends a line."""
    for number, line in enumerate(text.split("\n"), 1):
        yield number, line.removesuffix("\r")


def _name_in(url: str) -> str:
    return url.partition("?")[0].partition("#")[0].rpartition("/")[2]


def _at(number: int, read: Callable[..., T], *arguments: object) -> T:
    try:
        return read(*arguments)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
