"""What may be repeated of a foreign error: its number, its family, and what OpenSSL calls it.

Its text may hold an address with a secret.
"""

from __future__ import annotations

import os
import re
import ssl

from grym_fetch.core.text import safe_text

BROKEN = "the response breaks the rules of HTTP"
_HTTP_2 = re.compile(r"b['\"]\\x00\\x00(?:\\x[0-9a-f]{2}|\\?.)\\x04")
"""The frame of settings that a server of HTTP/2 begins with (RFC 9113 section 3.4)."""
_TLS = re.compile(r"b['\"]\\x1[56]\\x03\\x0[0-4]")
"""The beginning of an alert or a handshake (RFC 8446 section 5.1)."""


def broken_reason(error: str, began: bytes = b"") -> str:
    """Return what is wrong with a response, from llhttp's text for it and from how the response began.

    aiohttp shows the latter in the text, which is not repeated: it is the server's.
    """
    shown = repr(began) if began else error
    if _HTTP_2.search(shown):
        return "the server speaks HTTP/2 at this address, which is not supported without TLS"
    if _TLS.search(shown):
        return f"{BROKEN}: the server speaks TLS at this address; use https"
    reason = error.partition("\n")[0]
    if "Content-Length" not in reason:
        return BROKEN
    both = "Transfer-Encoding" in reason
    return f"{BROKEN}: {'Content-Length beside Transfer-Encoding' if both else 'an invalid Content-Length'}"


def stall_reason(seconds: float) -> str:
    """Return what a silence is called, and what it is measured by."""
    return f"nothing arrived for {seconds:g} s (--stall-timeout)"


def os_reason(error: BaseException) -> str:
    """Return what the operating system calls this error, or OpenSSL, whose numbers are none of the system's."""
    for each in (error, error.__cause__, error.__context__):
        if isinstance(each, ssl.SSLError):
            return tls_reason(each)
    number = getattr(error, "errno", None) or getattr(getattr(error, "os_error", None), "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number).lower()
    # Several addresses were tried and asyncio has joined their errors into one text without a number.
    is_joined = getattr(error, "os_error", None) is not None or "Multiple exceptions" in str(error)
    return "all addresses failed" if is_joined else "the connection was reset"


def tls_reason(error: BaseException | None) -> str:
    """Return what OpenSSL calls this error, and what to do where the server wants to know who we are."""
    name = getattr(error, "reason", None)
    if not isinstance(error, ssl.SSLError) or not isinstance(name, str) or not name:
        return os_reason(error) if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else "no reason"
    words = safe_text(name.replace("_", " ").lower(), limit=100)
    if name in _WANTS_CERTIFICATE:
        return f"{words}; the server wants a client certificate: name one in GRYM_FETCH_CLIENT_CERT"
    if name in _IS_NO_TLS:
        return f"{words}; the server speaks no TLS at this port"
    return words


_WANTS_CERTIFICATE = ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_CERTIFICATE_REQUIRED")
_IS_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")


def certificate_reason(error: BaseException | None) -> str:
    """Return why a certificate was rejected."""
    assert error is None or isinstance(error, ssl.SSLError | ssl.CertificateError)
    return safe_text(str(getattr(error, "verify_message", "") or "verification failed"))
