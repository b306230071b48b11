"""Rules for mirrors of one's own: how they are written, and where one leads.

Rule: a mirror gets nothing secret of the address that it stands for: no login, no query with a signature or a token.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from grym_fetch.core.text import redact_url, safe_text

MODES = ("fallback", "together")
ONLY = "only"
_EQUALS = re.compile(r"\s*=\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?:[^/?#@]*@)?(?P<host>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile("[A-Za-z0-9._~-]")
MAX_NAME_CHARACTERS = 253
_HOST = re.compile(r"(?P<name>.+?)\.?(?P<port>:[0-9]*)?", re.DOTALL)
_OWN_PORTS = {"http://": (":80", ":"), "https://": (":443", ":")}
_PREFIX = re.compile(r"(?:https?|s3|gs|az|lfs)://(?:[^/?#@\s\\]+/(?:[^?#\s\\]*/)?)?", re.IGNORECASE)
PREFIX_RULE = "the beginning of an address that ends with /, such as https://huggingface.co/"


@dataclass(frozen=True, slots=True)
class MirrorRule:
    """Addresses that begin with ``prefix`` are asked at ``mirror`` first; with ``only``, nowhere else.

    This is for assets with a checksum.
    Both end with ``/``; ``prefix`` may also be a scheme alone (``https://``): then the host becomes the first folder.
    ``mirror`` is an http or https address. Raises ValueError for anything else.
    """

    prefix: str
    mirror: str
    only: bool = False

    def __post_init__(self) -> None:
        from grym_fetch.core.manifest_values import check_url, has_login

        if not isinstance(self.prefix, str) or not _PREFIX.fullmatch(self.prefix):
            raise ValueError(f"{_shown(self.prefix)} is not {PREFIX_RULE}")
        try:
            if not isinstance(self.mirror, str) or not check_url(self.mirror).endswith("/") or "?" in self.mirror:
                raise ValueError(f"is not {PREFIX_RULE}")
            if has_login(self.mirror):
                raise ValueError("has a user or a password in it: put it into GRYM_FETCH_TOKEN_<HOST> or ~/.netrc")
        except ValueError as error:
            raise ValueError(f"{_shown(self.mirror)} {error}") from None
        object.__setattr__(self, "prefix", _comparable(self.prefix))

    def apply(self, url: str) -> str | None:
        """Return the mirror's address for ``url``; None if the rule is not about it."""
        from grym_fetch.core.manifest_values import MAX_URL_CHARACTERS

        whole = _comparable(url)
        if not whole.startswith(self.prefix):
            return None
        found = self.mirror + whole.removeprefix(self.prefix)
        return found if len(found) <= MAX_URL_CHARACTERS else None

    def __str__(self) -> str:
        return f"{self.prefix} = {self.mirror}"


def _shown(value: object) -> str:
    return repr(safe_text(redact_url(value) if isinstance(value, str) else repr(value), limit=200))


def _comparable(url: str) -> str:
    """The address in its normal form (RFC 3986 section 6.2.2), without its login and a query that may be secret.

    The same server, and the same file, in another spelling must not get past a rule with ``only``.
    """
    from yarl import URL

    from grym_fetch.core.signatures import may_be_signed, query_secrets

    match = _ADDRESS.fullmatch(url)
    if match is None or not match["host"]:
        return url
    path, mark, query = match["rest"].partition("#")[0].partition("?")
    parsed = URL.build(query_string=query, encoded=True)
    if may_be_signed(parsed) or query_secrets(parsed):
        mark = query = ""
    scheme = match["scheme"].lower()
    path = _without_dots(_ESCAPE.sub(_unescaped, path)) if path else "/"
    return f"{scheme}{_comparable_host(scheme, match['host'].lower())}{path}{mark}{query}"


def _comparable_host(scheme: str, host: str) -> str:
    parts = _HOST.fullmatch(host)
    if parts is None:
        return host
    name, port = parts["name"], parts["port"] or ""
    with suppress(ValueError):  # it is a name that cannot be written otherwise, or no IPv6 address
        if name.startswith("["):
            name = f"[{ipaddress.IPv6Address(name[1:-1]).compressed}]"
        elif not name.isascii() and len(name) <= MAX_NAME_CHARACTERS:  # the codec is quadratic
            name = name.encode("idna").decode("ascii").lower()
    return name + ("" if port in _OWN_PORTS.get(scheme, ()) else port)


def _unescaped(match: re.Match[str]) -> str:
    """A percent-encoded character, decoded if it means the same (RFC 3986 sections 2.3, 6.2.2.1 and 6.2.2.2)."""
    char = chr(int(match[1], 16))
    return char if _UNRESERVED.fullmatch(char) else match[0].upper()


def _without_dots(path: str) -> str:
    """The path without parts that mean this folder or the one above (RFC 3986 section 5.2.4)."""
    kept: list[str] = []
    parts = path.split("/")[1:]
    for part in parts:
        if part == "..":
            del kept[-1:]
        elif part != ".":
            kept.append(part)
    if parts[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


@dataclass(frozen=True, slots=True)
class MirrorChoices:
    """What ``GRYM_FETCH_MIRRORS`` or ``[mirrors]`` says. ``mode``, ``rules``: None if it says nothing about that."""

    mode: str | None = None
    rules: tuple[MirrorRule, ...] | None = None


def parse_mirrors(text: str) -> MirrorChoices:
    """Read ``fallback`` or ``together``, rules ``PREFIX = PREFIX``, and ``only``, separated by spaces.

    Raises `ValueError` with what is allowed.
    """
    mode: str | None = None
    pairs: list[tuple[str, str]] = []
    only = False
    for word in _EQUALS.sub("\0", text.strip()).split():
        prefix, equals, mirror = word.partition("\0")
        if equals:
            pairs.append((prefix, mirror))
        elif word.lower() == ONLY:
            only = True
        elif word.lower() in MODES:
            mode = word.lower()
        else:
            raise ValueError(f"{_shown(word)} is neither 'fallback', 'together' nor a rule PREFIX=PREFIX")
    if only and not pairs:
        raise ValueError("only is for rules: PREFIX=PREFIX only")
    rules = tuple(MirrorRule(prefix, mirror, only) for prefix, mirror in pairs)
    return MirrorChoices(mode, rules or None)


def read_mirrors(table: Mapping[str, object]) -> MirrorChoices:
    """Read the table ``[mirrors]`` of a settings file. Raises `ValueError` with the key and what is allowed."""
    mode, only = table.get("use"), table.get(ONLY, False)
    if mode is not None and mode not in MODES:
        raise ValueError(f"use must be one of {', '.join(map(repr, MODES))}")
    if not isinstance(only, bool):
        raise ValueError("only must be true or false")  # noqa: TRY004 - the data is wrong, not the program
    rules: list[MirrorRule] = []
    for prefix, value in table.items():
        if prefix in ("use", ONLY):
            continue
        mirrors = [mirror for mirror in (value if isinstance(value, list) else [value]) if isinstance(mirror, str)]
        if not mirrors or len(mirrors) != (len(value) if isinstance(value, list) else 1):
            raise ValueError(f"{_shown(prefix)} must have an address, or a list of them")
        rules += [MirrorRule(prefix, mirror, only) for mirror in mirrors]
    return MirrorChoices(str(mode) if mode is not None else None, tuple(rules) or None)


def are_rules(value: object) -> bool:
    """Whether this is a tuple of `MirrorRule`."""
    return isinstance(value, tuple) and all(isinstance(rule, MirrorRule) for rule in value)


def shown_rules(rules: Iterable[MirrorRule]) -> str:
    """The rules on one line, as ``GRYM_FETCH_MIRRORS`` takes them, each with its own ``only``."""
    return ", ".join(f"{rule}{' (only)' if rule.only else ''}" for rule in rules)
