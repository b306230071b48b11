"""Addresses: which may be requested, where a redirect leads, and who gets which credentials.

Rules: http and https only, on every hop; never from https down to http; no userinfo in a redirect. What is
found for an address goes to its scheme, host and port alone, and over plain http only on loopback.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from fnmatch import fnmatchcase
from functools import lru_cache

from yarl import URL

from grym_fetch.core.errors import PolicyRefused
from grym_fetch.core.signatures import is_signed

MAX_REDIRECTS = 10

METADATA_ADDRESSES = frozenset(
    {
        "169.254.169.254",  # AWS, Google, Azure, DigitalOcean, OpenStack, Oracle
        "169.254.170.2",  # AWS: containers (ECS)
        "169.254.170.23",  # AWS: pods (EKS)
        "168.63.129.16",  # Azure: the host of a virtual machine
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "169.254.42.42",  # Scaleway
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS: pods (EKS)
        "fd20:ce::254",  # Google
        "fd00:42::42",  # Scaleway
    }
)
"""The addresses at which clouds hand out a machine's credentials to anyone who asks from inside it."""
_METADATA = frozenset(ipaddress.ip_address(text) for text in METADATA_ADDRESSES)
_METADATA_4 = frozenset(int(address) for address in _METADATA if address.version == 4)


def parse_address(text: str) -> URL:
    """Read an absolute http or https address. Raises `PolicyRefused` for anything else."""
    try:
        url = _read(text)
        usable = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise PolicyRefused(text, "not an http or https address")
    return url


@lru_cache(maxsize=1024)
def to_the_letter(text: str) -> URL:
    """Read an address that is already encoded without changing its path and query: a signature may cover them.

    Raises ValueError for anything that is not an address.
    """
    try:
        url = URL(text, encoded=True)
        if not url.raw_query_string and "?" in text.partition("#")[0]:
            # yarl drops the question mark of an empty query, but keeps it as part of the path.
            path = f"{url.raw_path}?"
            return URL.build(scheme=url.scheme, authority=url.raw_authority, path=path, encoded=True)
    except IndexError:
        raise ValueError("no address") from None  # yarl raises IndexError for `http://[::]:x@`
    return url


def _read(text: str) -> URL:
    """Read an address as a person or a server writes it: only characters that cannot be sent are encoded."""
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
    # As UTF-8 (RFC 3986 section 2.5).
    encoded = "".join(char if _SENDABLE.fullmatch(char) else _percent_encoded(char) for char in rest)
    return to_the_letter(f"{scheme}{authority}{encoded}")


_SENDABLE = re.compile(r"[!-~]*")
_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?(//[^/?#]*)?(.*)", re.DOTALL)


def _percent_encoded(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8"))


def _read_field(value: str) -> URL:
    """Read an address from a header field, whose characters stand for the bytes received (latin-1).

    In a host name the bytes are UTF-8; anywhere else they are percent-encoded unchanged, whatever they mean.
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
    """Stands for scheme, host and port where they must be compared but not revealed: others may read a journal."""
    return _mark(*origin_key(url))


@lru_cache(maxsize=64)
def _mark(scheme: str, host: str, port: int) -> str:
    return hashlib.sha256(f"{scheme}://{host}:{port}".encode()).hexdigest()[:16]


def host_of(address: str) -> str:
    """Host and port of an address, for limits per host; empty if unreadable."""
    # Ten thousand assets of one host have one beginning.
    start = _START.match(address)
    return _host_of(address if start is None else start[0])


_START = re.compile(r"https?://[a-z0-9.:-]+/")


@lru_cache(maxsize=1024)
def _host_of(address: str) -> str:
    try:
        return host_in(_read(address))
    except ValueError:
        return ""


def host_in(url: URL) -> str:
    """Host and port of a parsed address, in the form of `host_of`."""
    return url.authority.rpartition("@")[2]


def follow_redirect(current: URL, location: str) -> URL:
    """Return where a redirect leads (RFC 9110 section 10.2.2), or raise `PolicyRefused`."""
    try:
        # Reparsed, so that the question mark of an empty query is dropped: it is not part of the base's path.
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
    """Say why this address is never connected to; None if it may be. ``ip`` is what the name resolved to."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0].rstrip("."))
    except ValueError:
        return None
    stands_for = [address, *_embedded(address)]
    if any(each.is_link_local or each in _METADATA for each in stands_for) or _translates_to_metadata(address):
        return "a link-local or cloud metadata address"
    if not allow_private and not all(_is_public(each) for each in stands_for[1:] or stands_for):
        return "a private address, and these were not allowed"
    return None


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _is_public(address: _Address) -> bool:
    """Whether it is a public address. Multicast reaches this network; fec0::/10 was private (RFC 3879)."""
    is_site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not address.is_multicast and not is_site_local


def _embedded(address: _Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 one may stand for: mapped, 6to4, NAT64 or Teredo."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    if address in _LOCAL_NAT64:
        return [ipaddress.IPv4Address(number) for number in _translated(address, shortest=48)]
    if any(address in network for network in _NAT64):
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    if address.teredo is not None:  # RFC 4380
        return [address.teredo[1]]
    found = address.ipv4_mapped or address.sixtofour  # RFC 4291, RFC 3056
    return [found] if found is not None else []


# RFC 6052; the last is the form for IPv4 that the mapped form replaced (RFC 4291 section 2.5.5.1).
_NAT64 = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "::/96"))
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
"""A network's own prefixes of this length or longer may be in it (RFC 8215)."""
_PREFIX_LENGTHS = (32, 40, 48, 56, 64, 96)
_WITHOUT_OCTET = ((1 << 64) - 1) << 64


def _translated(address: ipaddress.IPv6Address, *, shortest: int) -> list[int]:
    """The IPv4 addresses that NAT64 would read from it under a prefix of each length (RFC 6052 section 2.2)."""
    number = int(address)
    # Bits 64 to 71 are not part of the IPv4 address; without them it is contiguous.
    joined = (number & _WITHOUT_OCTET) >> 8 | (number & ((1 << 56) - 1))
    shifts = ((length, 88 - length) for length in _PREFIX_LENGTHS if shortest <= length < 96)
    return [joined >> shift & 0xFFFFFFFF for _, shift in shifts] + [number & 0xFFFFFFFF]


def _translates_to_metadata(address: _Address) -> bool:
    """Whether NAT64 with any prefix would lead there: a network may have its own prefix, which we cannot know."""
    if not isinstance(address, ipaddress.IPv6Address):
        return False
    return not _METADATA_4.isdisjoint(_translated(address, shortest=32))


def is_exempt(url: URL, exempt: str) -> bool:
    """Whether ``NO_PROXY`` names this address, in any of the spellings that curl, Go and requests know.

    Hosts are separated by commas or spaces and include their subdomains. Each may have a port, a leading ``.`` or
    ``*.``, a trailing dot, or brackets. IP addresses may also be a block (``10.0.0.0/8``) or have a zone or a ``*``.
    ``*`` alone means every host.
    """
    host = (url.host or "").lower().rstrip(".")
    number, zone = _number(host)
    return any(_is_named(host, number, zone, url.port, entry) for entry in exempt.lower().replace(",", " ").split())


def _is_named(host: str, number: _Address | None, zone: str, port: int | None, entry: str) -> bool:
    match = _EXEMPT.fullmatch(entry)
    if match is None or match["port"] not in (None, str(port)):
        return False
    name = (match["number"] or match["bare"] or match["name"]).removeprefix("*.").strip(".")
    bits = match["inner"] or match["bits"] or ""
    if number is not None:
        name, _, wanted = name.partition("%")
        try:
            return wanted.removeprefix("25") in ("", zone) and number in ipaddress.ip_network(name + bits, strict=False)
        except ValueError:
            pass  # a name, or an IP address with a star
    if bits or not name:
        return False
    return host == name or host.endswith(f".{name}") or ("*" in name and fnmatchcase(host, name))


def _number(host: str) -> tuple[_Address | None, str]:
    """The host as an IP address, if it is one, and its zone (RFC 6874)."""
    text, _, zone = host.partition("%")
    try:
        return ipaddress.ip_address(text), zone.removeprefix("25")
    except ValueError:
        return None, ""


_EXEMPT = re.compile(
    r"(?:\[(?P<number>[^\[\]/]*:[^\[\]/]*)(?P<inner>/[0-9]+)?\]|(?P<bare>[0-9a-f]*:[0-9a-f:.]*(?:%[^\[\]/]+)?)|(?P<name>[^\[\]:/]+))"
    r"(?P<bits>/[0-9]+)?(?::(?P<port>[0-9]+))?"
)


def is_loopback(url: URL) -> bool:
    """Whether the address names this machine itself. Only the connection knows where a name really leads."""
    return _is_loopback(url.host or "")


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    return is_loopback_ip(host) or host == "localhost" or host.endswith(".localhost")


def is_loopback_ip(text: str) -> bool:
    """Whether this is an IP address of this machine itself."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


BARE_HTTP = "plain http and no checksum: anyone on the way could change it. Use https, or pin it"


VARIABLE_PREFIX = "GRYM_FETCH_TOKEN_"


def token_variables(url: URL) -> tuple[str, ...]:
    """The variables that may hold a token for this address, the usual one first; empty if the host has none.

    No two hosts share one. ``.`` is written as ``_``, ``-`` as ``__``, ``_`` as ``___``, and a port that is not the
    scheme's default as ``_PORT_8443``. Hosts whose names would give the same variable (``a._b`` and ``a--b``), and IPv6
    addresses, have none; use the netrc file for them.
    """
    return _token_variables((url.raw_host or "").lower().rstrip("."), url.port, url.is_default_port())


@lru_cache(maxsize=64)
def _token_variables(host: str, port: int | None, is_default_port: bool) -> tuple[str, ...]:
    written = host.translate(_WRITTEN)
    if not _HOST_NAME.fullmatch(host) or _PORT_IN_NAME.search(host) or _PUNCTUATION.sub(_read_back, written) != host:
        return ()
    name = VARIABLE_PREFIX + written.upper()
    with_port = f"{name}_PORT_{port}"
    return (name, with_port) if is_default_port else (with_port,)


_WRITTEN = str.maketrans({".": "_", "-": "__", "_": "___"})
_HOST_NAME = re.compile(r"[a-z0-9._-]+", re.ASCII)
_PUNCTUATION = re.compile("_+")
_PORT_IN_NAME = re.compile(r"\.port\.[0-9]+$", re.ASCII)


def _read_back(run: re.Match[str]) -> str:
    """What a run of underscores stands for. Dots and underscores are single; dashes may be repeated (``xn--``)."""
    count = len(run[0])
    return {1: ".", 3: "_"}.get(count) or ("-" * (count // 2) if count % 2 == 0 else "?")


@dataclass(frozen=True, slots=True)
class Credential:
    """The value sent as ``Authorization``, and where it came from; the repr shows only the latter."""

    field: str = dataclass_field(repr=False)
    source: str


NETRC = "~/.netrc (readable by you alone)"
"""Where a login belongs, for messages."""


class Credentials:
    """Finds the credential for an address: from its userinfo, the environment, or netrc, in this order.

    ``netrc`` maps exact host names to (login, password). Hosts are compared as they go over the wire (IDNA, RFC 5891),
    so that a name which only looks alike gets nothing. ``stored_hf_token`` is what ``hf auth login`` has stored; it is
    used as ``HF_TOKEN`` if that is not set. The repr shows nothing.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        netrc: Mapping[str, tuple[str, str]] | None = None,
        *,
        stored_hf_token: str = "",
    ) -> None:
        self._tokens = {
            name.upper(): value.strip()
            for name, value in environ.items()
            if name.startswith(VARIABLE_PREFIX) and name.isascii() and value.strip()
        }
        self._hf_token = (environ.get("HF_TOKEN") or "").strip()
        self._hf_source = "HF_TOKEN"
        if not self._hf_token and stored_hf_token:
            self._hf_token, self._hf_source = stored_hf_token, "the token file of the hf command"
        self._netrc = dict(netrc or {})
        self._hf_origin: tuple[str, str, int] | None
        try:
            self._hf_origin = origin_key(parse_address(environ.get("HF_ENDPOINT") or "https://huggingface.co"))
        except PolicyRefused:
            # It is set to mean a host other than huggingface.co, and we cannot tell which.
            self._hf_origin = None

    def find(self, url: URL) -> Credential | None:
        """Return the credential for this address, or None. Raises `PolicyRefused` for a token that cannot be sent."""
        if url.scheme != "https" and not is_loopback(url):
            return None
        if is_signed(url):
            return None  # the address itself is the credential; S3 answers 400 to both
        if url.user is not None or url.password is not None:
            return Credential(_basic(url.user or "", url.password or ""), "the address itself")
        for name in token_variables(url):
            if token := self._tokens.get(name):
                return _bearer(url, token, name)
        if self._hf_token and origin_key(url) == self._hf_origin:
            return _bearer(url, self._hf_token, self._hf_source)
        host = (url.raw_host or "").lower()
        if host in self._netrc:
            return Credential(_basic(*self._netrc[host]), "the netrc file")
        return None

    def authorization(self, url: URL) -> str | None:
        """Return the ``Authorization`` field's value for this address, or None."""
        found = self.find(url)
        return found.field if found is not None else None

    def advice(self, url: URL) -> str:
        """Say where a credential for this address would be taken from, and which variable is set but misspelt."""
        if url.scheme != "https" and not is_loopback(url):
            return "credentials travel over https only: use the https address of the server"
        if self._hf_token and self._hf_origin is None:
            return "HF_ENDPOINT is not a whole address (https://…), so HF_TOKEN goes nowhere: correct or unset it"
        wanted = self.variable(url)
        if wanted and (other := self._misspelt(url)):
            return f"{other} is not for this host and port: set {wanted} instead"
        netrc = f"add the host to {NETRC}"
        return f"set {wanted} to a token, or {netrc}" if wanted else netrc

    def variable(self, url: URL) -> str:
        """The variable that a token for this address would be taken from; empty if there is none."""
        return "HF_TOKEN" if origin_key(url) == self._hf_origin else next(iter(token_variables(url)), "")

    def _misspelt(self, url: URL) -> str:
        """The variable, if set, that earlier versions read for a token for this host; else empty."""
        old = VARIABLE_PREFIX + (url.raw_host or "").upper().translate(_AS_UNDERSCORE)
        return old if old in self._tokens and old not in token_variables(url) else ""

    def __repr__(self) -> str:
        return "Credentials(…)"


_AS_UNDERSCORE = str.maketrans(".-:", "___")


def _bearer(url: URL, token: str, source: str) -> Credential:
    if not (token.isascii() and token.isprintable()):
        raise PolicyRefused(
            str(url), f"the token in {source} has a line end or a character that is not ASCII: correct it"
        )
    return Credential(f"Bearer {token}", source)


def _basic(login: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode("ascii")
