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
from dataclasses import dataclass
from dataclasses import field as dataclass_field
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


def _read(text: str) -> URL:
    try:
        # An address that is already encoded is left as it is, to the letter: a signature may cover it.
        return URL(text, encoded=text.isascii() and text.isprintable() and " " not in text)
    except IndexError:
        raise ValueError("no address") from None  # yarl's word for `http://[::]:x@`


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
        text = str(current.join(_read(location)).with_fragment(None))
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


def is_loopback(url: URL) -> bool:
    """Whether the address names this machine itself."""
    return _is_loopback(url.host or "")


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


VARIABLE_PREFIX = "GRYM_FETCH_TOKEN_"


def token_variables(url: URL) -> tuple[str, ...]:
    """The variables that may hold a token for this address, the usual one first; none for hosts that have none.

    No two hosts share one. ``.`` is written as ``_``, ``-`` as ``__``, ``_`` as ``___``, and a port that is not the
    scheme's own as ``_PORT_8443``. Hosts whose name would be written as another's (``a._b`` and ``a--b``), and IPv6
    addresses, have none; the netrc file is for them.
    """
    host = (url.raw_host or "").lower().rstrip(".")
    written = host.translate(_WRITTEN)
    if not _HOST_NAME.fullmatch(host) or _PORT_IN_NAME.search(host) or _PUNCTUATION.sub(_read_back, written) != host:
        return ()
    name = VARIABLE_PREFIX + written.upper()
    with_port = f"{name}_PORT_{url.port}"
    return (name, with_port) if url.is_default_port() else (with_port,)


_WRITTEN = str.maketrans({".": "_", "-": "__", "_": "___"})
_HOST_NAME = re.compile(r"[a-z0-9._-]+", re.ASCII)
_PUNCTUATION = re.compile("_+")
_PORT_IN_NAME = re.compile(r"\.port\.[0-9]+$", re.ASCII)


def _read_back(run: re.Match[str]) -> str:
    """What a run of underscores stands for. Dots and underscores come alone; dashes may come together (``xn--``)."""
    count = len(run[0])
    return {1: ".", 3: "_"}.get(count) or ("-" * (count // 2) if count % 2 == 0 else "?")


@dataclass(frozen=True, slots=True)
class Credential:
    """What is sent as ``Authorization``, and where it is from; its repr says only that."""

    field: str = dataclass_field(repr=False)
    source: str


class Credentials:
    """Finds the credential for an address: from its userinfo, the environment, or netrc, in this order.

    ``netrc`` maps exact host names to (login, password). Hosts are compared as they go over the wire (IDNA, RFC 5891),
    so that no name which only looks alike gets anything. Never shown: its repr says nothing.
    """

    def __init__(self, environ: Mapping[str, str], netrc: Mapping[str, tuple[str, str]] | None = None) -> None:
        self._tokens = {
            name.upper(): value.strip()
            for name, value in environ.items()
            if name.startswith(VARIABLE_PREFIX) and name.isascii() and value.strip()
        }
        self._hf_token = (environ.get("HF_TOKEN") or "").strip()
        self._netrc = dict(netrc or {})
        self._hf_origin: tuple[str, str, int] | None
        try:
            self._hf_origin = origin_key(parse_address(environ.get("HF_ENDPOINT") or "https://huggingface.co"))
        except PolicyRefused:
            # Whoever sets it does not mean huggingface.co, and nobody knows whom.
            self._hf_origin = None

    def find(self, url: URL) -> Credential | None:
        """Return the credential for this address, or None."""
        if url.scheme != "https" and not is_loopback(url):
            return None
        if is_signed(url):
            return None  # the address itself is the credential; S3 answers 400 to both
        if url.user is not None or url.password is not None:
            return Credential(_basic(url.user or "", url.password or ""), "the address itself")
        for name in token_variables(url):
            if token := self._tokens.get(name):
                return Credential(f"Bearer {token}", name)
        if self._hf_token and origin_key(url) == self._hf_origin:
            return Credential(f"Bearer {self._hf_token}", "HF_TOKEN")
        host = (url.raw_host or "").lower()
        if host in self._netrc:
            return Credential(_basic(*self._netrc[host]), "the netrc file")
        return None

    def authorization(self, url: URL) -> str | None:
        """Return the ``Authorization`` field's value for this address, or None."""
        found = self.find(url)
        return found.field if found is not None else None

    def advice(self, url: URL) -> str:
        """Say where a credential for this address would be taken from, and which variable only looks like it."""
        if url.scheme != "https" and not is_loopback(url):
            return "credentials travel over https only: use the https address of the server"
        wanted = self.variable(url)
        if wanted and (other := self._misspelt(url)):
            return f"{other} is not for this host and port: set {wanted} instead"
        netrc = "add the host to ~/.netrc (readable by you alone)"
        return f"set {wanted} to a token, or {netrc}" if wanted else netrc

    def variable(self, url: URL) -> str:
        """The variable that a token for this address would be taken from; empty if there is none."""
        return "HF_TOKEN" if origin_key(url) == self._hf_origin else next(iter(token_variables(url)), "")

    def _misspelt(self, url: URL) -> str:
        """The variable that is set and that earlier versions took a token for this host from; empty if none."""
        old = VARIABLE_PREFIX + (url.raw_host or "").upper().translate(_AS_UNDERSCORE)
        return old if old in self._tokens and old not in token_variables(url) else ""

    def __repr__(self) -> str:
        return "Credentials(…)"


_AS_UNDERSCORE = str.maketrans(".-:", "___")

# What the makers of signed addresses call the signature: any one of a set of names means that it is one.
_SIGNATURES = (
    frozenset({"x-amz-signature"}),  # S3 and what speaks like it
    frozenset({"x-goog-signature"}),  # Google Cloud Storage
    frozenset({"signature", "expires"}),  # S3 version 2, CloudFront
    frozenset({"signature", "policy"}),  # CloudFront
    frozenset({"sig", "se"}),  # Azure
)


def is_signed(url: URL) -> bool:
    """Whether a signature in the address lets whoever has it in, for a while."""
    if "sig" not in url.raw_query_string.lower():
        return False
    names = {part.partition("=")[0].lower() for part in url.raw_query_string.split("&")}
    return any(needed <= names for needed in _SIGNATURES)


def _basic(login: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode("ascii")
