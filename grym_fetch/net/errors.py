"""Turns foreign errors into ours. Only their number, their kind and OpenSSL's name for them may be repeated.

Rule: their text is never repeated. It may hold an address with a secret.
"""

from __future__ import annotations

import os
import re
import socket
import ssl

from grym_fetch.core.errors import CertificateRejected, ConnectFailed
from grym_fetch.core.text import safe_text
from grym_fetch.core.variables import CLIENT_CERT, CLIENT_KEY
from grym_fetch.runtime import system

BROKEN = "the response breaks the rules of HTTP"
_HTTP_2 = re.compile(rb"\0\0[\0-\xff]\x04")
"""The SETTINGS frame that an HTTP/2 server begins with (RFC 9113 section 3.4)."""
_TLS = re.compile(rb"[\x15\x16]\x03[\0-\x04]")
"""The beginning of an alert or a handshake (RFC 8446 section 5.1)."""


def broken_reason(error: str, began: bytes = b"") -> str:
    """Say what is wrong with a response, from llhttp's message and the beginning of the response."""
    if _HTTP_2.match(began):
        return "the server speaks HTTP/2 at this address, which is not supported without TLS"
    if _TLS.match(began):
        return f"{BROKEN}: the server speaks TLS at this address; use https"
    if "Content-Length" not in error:
        return BROKEN
    both = "Transfer-Encoding" in error
    return f"{BROKEN}: {'Content-Length beside Transfer-Encoding' if both else 'an invalid Content-Length'}"


def stall_reason(seconds: float) -> str:
    """Describe a stall, and name the option that sets the time."""
    return f"nothing arrived for {seconds:g} s (--stall-timeout)"


def os_reason(error: OSError) -> str:
    """Return the operating system's name for this error, or OpenSSL's, which has its own numbers."""
    if isinstance(error, ssl.SSLError):
        return tls_reason(error)
    if isinstance(error.errno, int) and error.errno > 0:
        return system.words_for(error).lower()
    # Several addresses were tried, and their errors were joined into one text without a number.
    return "all addresses failed" if "Multiple exceptions" in str(error) else "the connection was reset"


def tls_reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's name for this error, and what to do if it is about a client certificate."""
    name = getattr(error, "reason", None)  # missing if Python code made the error
    if not isinstance(name, str) or not name:
        return "no reason"
    words = safe_text(name.replace("_", " ").lower(), limit=100)
    names = f"{CLIENT_CERT} and {CLIENT_KEY}"
    if name in _WANTS_CERTIFICATE:
        return f"{words}; the server wants a client certificate: name one and its key in {names}"
    if name in _REFUSES_CERTIFICATE:
        return f"{words}; the server does not accept the client certificate, if any, that {names} name"
    if name in _MAY_WANT_CERTIFICATE:
        return f"{words}; the server may want a client certificate ({names})"
    if name in _IS_NO_TLS:
        return f"{words}; the server speaks no TLS at this port"
    return words


def is_about_client_certificate(error: ssl.SSLError) -> bool:
    """Whether the server seems to want a client certificate, or to reject ours: trying again does not help."""
    return getattr(error, "reason", None) in _WANTS_CERTIFICATE | _REFUSES_CERTIFICATE | _MAY_WANT_CERTIFICATE


# The alerts of RFC 8446 section 6.2, as OpenSSL names them.
_WANTS_CERTIFICATE = frozenset({"TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_CERTIFICATE_REQUIRED"})
_REFUSES_CERTIFICATE = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)
# Before TLS 1.3 there is no special alert for a missing certificate.
_MAY_WANT_CERTIFICATE = frozenset({"SSLV3_ALERT_HANDSHAKE_FAILURE", "SSL/TLS_ALERT_HANDSHAKE_FAILURE"})
_IS_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})


def certificate_reason(error: ssl.SSLCertVerificationError) -> str:
    """Return why a certificate was rejected."""
    return safe_text(str(getattr(error, "verify_message", "") or "verification failed"))


def _trust_advice() -> str:
    """Advice to append to a rejection if the environment names trusted certificates that cannot be read."""
    for name, is_there in (("SSL_CERT_FILE", os.path.isfile), ("SSL_CERT_DIR", os.path.isdir)):
        if (place := os.environ.get(name)) and not (is_there(place) and os.access(place, os.R_OK)):
            return f"; {name} names {safe_text(place)}, which cannot be read"
    return ""


def connect_error(error: OSError | UnicodeError, url: str, seconds: float, *, is_proxy: bool = False) -> ConnectFailed:
    """Return our error for one that ended an attempt to connect to the server or the proxy."""
    match error:
        case TimeoutError():
            return ConnectFailed(url, f"no connection{' to the proxy' if is_proxy else ''} within {seconds:g} s")
        case ssl.SSLCertVerificationError():
            whose = "the proxy's" if is_proxy else "the server's"
            reason = f"{whose} certificate was rejected: {certificate_reason(error)}{_trust_advice()}"
            return CertificateRejected(url, reason)
        case ssl.SSLError():
            reason = f"the TLS handshake{' with the proxy' if is_proxy else ''} failed: {tls_reason(error)}"
            return (CertificateRejected if is_about_client_certificate(error) else ConnectFailed)(url, reason)
        case socket.gaierror() | UnicodeError():
            return ConnectFailed(url, f"the {'name of the proxy' if is_proxy else 'host name'} cannot be resolved")
        case _:
            return ConnectFailed(
                url, f"{'no connection to the proxy' if is_proxy else 'cannot connect'}: {os_reason(error)}"
            )
