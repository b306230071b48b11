"""When a server's certificate expires, from a handshake that was made anyway, and sessions that shorten the next one.

Rules: a session is used only with the name and the context that it was made with, so with a server whose certificate
was verified for that name. With TLS 1.3 the server offers it after the handshake (RFC 8446 section 4.6.1), so it is
kept when the first answer has come. asyncio and uvloop pass no session on; but they make what a context's
`sslobject_class` says, and that takes one.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import ClassVar


class _ResumingTls(ssl.SSLObject):
    """The client's side of TLS. It begins with the last session with the same server, if there is one."""

    sessions: ClassVar[dict[str, ssl.SSLSession]]
    """The last session with each server, by the name that its certificate was verified for."""
    _has_begun = False

    def do_handshake(self) -> None:
        """Go on with the handshake. Raises what `ssl.SSLObject.do_handshake` raises."""
        name = self.server_hostname or ""
        if not self._has_begun:
            self._has_begun = True
            if (known := self.sessions.get(name)) is not None:
                self.session = known
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            self.sessions.pop(name, None)  # the next attempt must not fail for the same reason
            raise


def resume_sessions(context: ssl.SSLContext) -> None:
    """Let connections that asyncio makes with this context resume sessions that `keep_session` has kept."""
    context.sslobject_class = type("ResumingTls", (_ResumingTls,), {"sessions": {}})


def keep_session(transport: asyncio.BaseTransport) -> None:
    """Keep the session that the server has offered, if any, for the next connection to it."""
    tls = transport.get_extra_info("ssl_object")
    if not isinstance(tls, _ResumingTls) or tls.server_hostname is None:
        return
    session = tls.session
    # Before TLS 1.3 a session can be resumed by its id as well.
    if session is not None and (session.has_ticket or (session.id and tls.version() != "TLSv1.3")):
        tls.sessions[tls.server_hostname] = session


def certificate_expiry(transport: asyncio.BaseTransport) -> float | None:
    """Return when the peer's certificate expires, in seconds since the epoch; None without TLS."""
    certificate = transport.get_extra_info("peercert") or {}
    try:
        return ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    except (KeyError, ValueError):
        return None
