"""Addresses: which may be asked, where a redirect leads, and who gets which credentials.

Rules: http and https only, on every hop; never from https down to http; no userinfo in a redirect. Credentials belong
to one scheme, host and port: no other gets them, and plain http gets them only on loopback.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache

from yarl import URL

from grym_fetch.core.errors import PolicyRefused

MAX_REDIRECTS = 10

# The addresses where clouds hand out their machines' credentials, besides link-local ones.
_METADATA = frozenset(
    ipaddress.ip_address(text) for text in ("100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)


def parse_address(text: str) -> URL:
    """Read an absolute http or https address; `PolicyRefused` for anything else."""
    try:
        url = _read(text)
        usable = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise PolicyRefused(text, "not an http or https address")
    return url


def to_the_letter(text: str) -> URL:
    """Read an address that is encoded already, and change no letter of its path and query: a signature may cover them.

    Raises ValueError for what is no address.
    """
    try:
        url = URL(text, encoded=True)
        if not url.raw_query_string and "?" in text.partition("#")[0]:
            # yarl drops the question mark of an empty query; as part of the path it stays.
            path = f"{url.raw_path}?"
            return URL.build(scheme=url.scheme, authority=url.raw_authority, path=path, encoded=True)
    except IndexError:
        raise ValueError("no address") from None  # yarl's word for `http://[::]:x@`
    return url


def _read(text: str) -> URL:
    """Read an address as a person or a server writes it: what cannot be sent is encoded, and nothing else changed."""
    if _SENDABLE.fullmatch(text):
        return to_the_letter(text)
    match = _PARTS.fullmatch(text)
    assert match is not None, "it matches anything"
    scheme, authority, rest = match.groups(default="")
    if not _SENDABLE.fullmatch(authority):
        try:
            authority = f"//{URL((scheme or 'http:') + authority).raw_authority}"
        except IndexError:
            raise ValueError("no address") from None
    # By UTF-8 (RFC 3986 section 2.5).
    encoded = "".join(char if _SENDABLE.fullmatch(char) else _percent_encoded(char) for char in rest)
    return to_the_letter(f"{scheme}{authority}{encoded}")


_SENDABLE = re.compile(r"[!-~]*")
_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?(//[^/?#]*)?(.*)", re.DOTALL)


def _percent_encoded(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8"))


def _read_field(value: str) -> URL:
    """Read an address from a header field, whose characters stand for the bytes that came (latin-1).

    In a host name these are UTF-8; anywhere else they are encoded as they are, whatever they mean.
    """
    match = _PARTS.fullmatch(value)
    assert match is not None, "it matches anything"
    scheme, authority, rest = match.groups(default="")
    if authority and not authority.isascii():
        authority = authority.encode("latin-1").decode("utf-8")
    rest = "".join(f"%{ord(char):02X}" if "\x80" <= char <= "\xff" else char for char in rest)
    return _read(f"{scheme}{authority}{rest}")


def origin_key(url: URL) -> tuple[str, str, int]:
    """Scheme, host and port: what credentials are bound to (RFC 6454)."""
    return url.scheme, (url.host or "").lower().rstrip("."), url.port or 0


def server_mark(url: URL) -> str:
    """Stands for scheme, host and port where they are compared and not told: a journal may be read by others."""
    return hashlib.sha256("{}://{}:{}".format(*origin_key(url)).encode()).hexdigest()[:16]


def host_of(address: str) -> str:
    """Host and port of an address, for limits per host; empty if unreadable."""
    try:
        return _read(address).authority.rpartition("@")[2]
    except ValueError:
        return ""


def follow_redirect(current: URL, location: str) -> URL:
    """Return where a redirect leads (RFC 9110 section 10.2.2), or raise `PolicyRefused`."""
    try:
        # Read anew, the base has lost the question mark of an empty query, which is no part of its path.
        text = str(URL(str(current), encoded=True).join(_read_field(location)).with_fragment(None))
    except ValueError:
        raise PolicyRefused(str(current), "a redirect to an unreadable address") from None
    target = parse_address(text)
    if target.user is not None or target.password is not None:
        target = target.with_user(None)
    if current.scheme == "https" and target.scheme == "http":
        raise PolicyRefused(str(target), "a redirect from https down to http")
    return target


def forbidden_reason(ip: str, *, allow_private: bool) -> str | None:
    """Say why this address is never connected to, or None. ``ip`` is what the name resolved to."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return None
    address = _embedded(address) or address
    if address.is_link_local or address in _METADATA:
        return "a link-local or cloud metadata address"
    if not allow_private and not address.is_global:
        return "a private address, and these were not allowed"
    return None


def _embedded(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for: mapped, 6to4, NAT64 or Teredo."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:  # RFC 4380
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour  # RFC 4291, RFC 3056


# RFC 6052, RFC 8215; the last is what was meant for IPv4 before it was mapped (RFC 4291 section 2.5.5.1).
_NAT64 = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96"))


def is_exempt(url: URL, exempt: str) -> bool:
    """Whether ``NO_PROXY`` names this address, in any of the spellings that curl, Go and requests know.

    Hosts by comma or space, each with all below it; with or without a port, a leading ``.`` or ``*.``, a trailing dot,
    brackets; numbers also as a block (``10.0.0.0/8``) or with ``*``; and ``*`` alone.
    """
    host = (url.host or "").lower().rstrip(".")
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        number = None
    return any(_is_named(host, number, url.port, entry) for entry in exempt.lower().replace(",", " ").split())


def _is_named(
    host: str, number: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int | None, entry: str
) -> bool:
    match = _EXEMPT.fullmatch(entry)
    if match is None or match["port"] not in (None, str(port)):
        return False
    name = (match["number"] or match["bare"] or match["name"]).removeprefix("*.").strip(".")
    if number is not None:
        try:
            return number in ipaddress.ip_network(name + (match["bits"] or ""), strict=False)
        except ValueError:
            pass  # a name, or a number with a star
    return bool(name) and (host == name or host.endswith(f".{name}") or ("*" in name and fnmatchcase(host, name)))


_EXEMPT = re.compile(
    r"(?:\[(?P<number>[0-9a-f:.%]+)\]|(?P<bare>[0-9a-f]*:[0-9a-f:.]*)|(?P<name>[^\[\]:/]+))(?P<bits>/[0-9]+)?(?::(?P<port>[0-9]+))?"
)


def is_loopback(url: URL) -> bool:
    """Whether the address names this machine itself."""
    return _is_loopback(url.host or "")


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class Credentials:
    """Finds the ``Authorization`` field for an address: from its userinfo, the environment, or netrc, in this order.

    ``netrc`` maps exact host names to (login, password). Never shown: its repr says nothing.
    """

    def __init__(self, environ: Mapping[str, str], netrc: Mapping[str, tuple[str, str]] | None = None) -> None:
        prefix = "GRYM_FETCH_TOKEN_"
        self._tokens = {
            name[len(prefix) :].upper(): value for name, value in environ.items() if name.startswith(prefix)
        }
        self._hf_token = environ.get("HF_TOKEN")
        self._netrc = dict(netrc or {})
        try:
            self._hf_origin = origin_key(parse_address(environ.get("HF_ENDPOINT") or "https://huggingface.co"))
        except PolicyRefused:
            self._hf_origin = origin_key(URL("https://huggingface.co"))

    def authorization(self, url: URL) -> str | None:
        """Return the field's value for this address, or None."""
        if url.scheme != "https" and not is_loopback(url):
            return None
        if url.user is not None or url.password is not None:
            return _basic(url.user or "", url.password or "")
        host = (url.host or "").lower()
        token = self._tokens.get(host.upper().translate(_AS_UNDERSCORE))
        if token is None and origin_key(url) == self._hf_origin:
            token = self._hf_token
        if token and (token := token.strip()):
            return f"Bearer {token}"
        if host in self._netrc:
            return _basic(*self._netrc[host])
        return None

    def __repr__(self) -> str:
        return "Credentials(…)"


_AS_UNDERSCORE = str.maketrans(".-:", "___")


def _basic(login: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode("ascii")
