"""What may be repeated of a foreign error: its number and its family. Its text may hold an address with a secret."""

from __future__ import annotations

import os
import ssl

from grym_fetch.core.text import safe_text


def os_reason(error: BaseException) -> str:
    """Return what the operating system calls this error."""
    number = getattr(error, "errno", None) or getattr(getattr(error, "os_error", None), "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number).lower()
    # Several addresses were tried and asyncio has joined their errors into one text without a number.
    is_joined = getattr(error, "os_error", None) is not None or "Multiple exceptions" in str(error)
    return "all addresses failed" if is_joined else "the connection was reset"


def certificate_reason(error: BaseException | None) -> str:
    """Return why a certificate was rejected."""
    assert error is None or isinstance(error, ssl.SSLError | ssl.CertificateError)
    return safe_text(str(getattr(error, "verify_message", "") or "verification failed"))
