"""Why a server refused: who it was, whether a credential was sent, and what to do next. For both `sync` and `doctor`.

Rules: the host that refused is named if a redirect led to it. A signed address that is refused has most likely expired,
and a token would not help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from yarl import URL

from grym_fetch.core.addresses import NETRC, Credential, Credentials, origin_key
from grym_fetch.core.challenges import wants_login
from grym_fetch.core.signatures import is_signed, may_be_signed
from grym_fetch.core.text import safe_text
from grym_fetch.core.variables import CLIENT_CERT, CLIENT_KEY

_EXPIRED = frozenset({400, 401, 403, 410})
"""The statuses of signed addresses that have expired; 400 is S3's."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What happened, and what to do next (may be empty). ``variable`` is where a token would be read from, if any.

    ``sent`` is where the credential is from that was sent and not accepted.
    """

    reason: str
    advice: str = ""
    variable: str = ""
    sent: str = ""

    def __str__(self) -> str:
        return f"{self.reason}; {self.advice}" if self.advice else self.reason


def explain_refusal(
    status: int,
    reason: str,
    *,
    first: URL,
    here: URL,
    sent: Credential | None,
    credentials: Credentials,
    challenges: Sequence[str] = (),
) -> Refusal:
    """Explain a status of 400 or above from ``here``, to which the manifest's address ``first`` led.

    ``reason`` is what the head of the response says by itself, and begins with the status; ``challenges`` are its
    ``WWW-Authenticate`` fields.
    """
    if status in _EXPIRED and is_signed(first):
        reason = f"status {status}: this address is signed and has probably expired"
        return Refusal(reason, "put a fresh one in; with a checksum, what has arrived is kept")
    if origin_key(here) != origin_key(first):
        told = f"status {status} from {shown_host(here)}, where a redirect led"
        reason = reason.replace(f"status {status}", told, 1)
        if status not in _EXPIRED:
            return Refusal(reason)
        advice = "the account behind the first address may lack access, or the clock of this machine is wrong"
        return Refusal(f"{reason}; no credentials are sent there", advice if is_signed(here) else "")
    if status in (401, 403):
        if sent is not None:
            advice = f"renew {sent.source}, and see that the account has access"
            reason = f"{reason}; the credentials from {sent.source} were not accepted"
            return Refusal(reason, advice, sent=sent.source)
        reason = f"{reason}; no credentials were sent"
        if may_be_signed(first):
            return Refusal(reason, "if the address is signed or holds a token, it may have expired: put a fresh one in")
        if first.scheme == "https" and wants_login(challenges):
            # A git server, for example, to which a bearer token says nothing.
            return Refusal(reason, "put a login and a password, or a token in its place, for this host into " + NETRC)
        return Refusal(reason, credentials.advice(first), credentials.variable(first))
    if status == 400 and here.scheme == "https":
        # nginx and its derivatives complete the handshake, and ask for the certificate with this status.
        advice = f"some servers say so if they want a client certificate ({CLIENT_CERT} and {CLIENT_KEY})"
        return Refusal(reason, advice)
    if status == 404 and sent is not None:
        return Refusal(reason, f"or the account of the credentials from {sent.source} has no access")
    return Refusal(reason)


def shown_host(url: URL) -> str:
    """Host, and port if it is not the scheme's default, for messages."""
    host = url.host_subcomponent or ""
    return safe_text(host if url.is_default_port() else f"{host}:{url.port}", limit=120)
