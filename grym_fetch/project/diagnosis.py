"""Finds out why assets cannot be fetched: the environment, the disk, and every address.

Rules: each check is one `Finding`, with what was found and, if something is wrong, what to do next. Every address is
asked for one byte, a few at a time, by the same code that fetches; nothing is downloaded and nothing is changed. An
address that fails while another one of the same asset works is a warning, since a sync would succeed.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from yarl import URL

from grym_fetch.core.addresses import is_loopback
from grym_fetch.core.buckets import is_bucket_address
from grym_fetch.core.command_lines import command_line
from grym_fetch.core.errors import (
    CertificateRejected,
    GrymFetchError,
    PolicyRefused,
    ProxyRefused,
    StorageError,
    TransferError,
)
from grym_fetch.core.figures import format_size
from grym_fetch.core.http import Asked, Broken, ErrorStatus, ResponseHead, UnusableRange, WrongDigest, length_hint
from grym_fetch.core.lfs_addresses import is_resolved_when_asked
from grym_fetch.core.manifest import Asset
from grym_fetch.core.origins import Origin
from grym_fetch.core.ranges import ByteRange, parse_content_range, parse_length
from grym_fetch.core.refusals import Refusal
from grym_fetch.core.text import redact_url, safe_text
from grym_fetch.core.variables import CLIENT_CERT, CLIENT_KEY
from grym_fetch.core.world import Clock
from grym_fetch.disk.folders import user_name
from grym_fetch.disk.state import StateFolder
from grym_fetch.disk.wrong_origins import WrongOrigins
from grym_fetch.manifest_files.project import Project
from grym_fetch.net.buckets import BucketSigner
from grym_fetch.net.client import HttpTransport
from grym_fetch.net.credentials import find_credentials
from grym_fetch.net.proxies import ADVICE as SOCKS_ADVICE
from grym_fetch.net.proxies import read_proxy
from grym_fetch.net.settings import HttpSettings, proxy_credentials
from grym_fetch.runtime import system
from grym_fetch.transfer.request import Requester

Level = Literal["ok", "warn", "fail"]

MAX_PROBES = 4
"""How many addresses are asked at once."""
CLOCK_TOLERANCE_S = 300.0
"""How far this machine's clock may differ from the servers': signed addresses and certificates tolerate that much."""
MIN_CERTIFICATE_DAYS = 14
"""A certificate that expires sooner than this is a warning."""
DIGEST_FIELDS = ("repr-digest", "content-digest", "digest", "x-goog-hash", "content-md5")
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. ``advice`` is what to do next, or empty; ``figures`` are for programs."""

    level: Level
    check: str
    what: str
    advice: str = ""
    asset: str | None = None
    figures: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Return the finding for ``--json``."""
        named = {"asset": self.asset} if self.asset is not None else {}
        record = {"level": self.level, "check": self.check, **named, "what": self.what, "advice": self.advice}
        return record | dict(self.figures)


# --- This machine -------------------------------------------------------------------------------------------


def environment_findings(environ: Mapping[str, str]) -> list[Finding]:
    """Proxy and TLS settings, without their secrets."""
    return [*_proxy_findings(environ), *_tls_findings(environ)]


def _variable(environ: Mapping[str, str], name: str) -> str:
    # As in urllib: the lower-case name first.
    return environ.get(name.lower()) or environ.get(name) or ""


def _proxy_findings(environ: Mapping[str, str]) -> list[Finding]:
    found: list[Finding] = []
    for name in PROXY_VARIABLES:
        value = _variable(environ, name)
        if not value:
            continue
        try:
            proxy = read_proxy(value, "")
        except ProxyRefused as error:
            advice = f"set {name} to an address such as http://proxy.example.org:3128 or socks5h://localhost:1080"
            found.append(Finding("fail", "proxy", f"{name}: {error.reason}", advice))
            continue
        if proxy.is_socks and find_spec("python_socks") is None:
            found.append(Finding("fail", "proxy", f"{name}: {SOCKS_ADVICE}", "pip install 'grym-fetch[socks]'"))
            continue
        shown = safe_text(f"{proxy.host}:{proxy.port}")
        found.append(Finding("ok", "proxy", f"{name}: requests go through {shown}"))
    exempt = _variable(environ, "NO_PROXY")
    if found and exempt:
        found.append(Finding("ok", "proxy", f"NO_PROXY: not for {safe_text(exempt)}"))
    return found or [Finding("ok", "proxy", "no proxy is set")]


def _tls_findings(environ: Mapping[str, str]) -> list[Finding]:
    found: list[Finding] = []
    for name, is_there in (("SSL_CERT_FILE", os.path.isfile), ("SSL_CERT_DIR", os.path.isdir)):
        value = environ.get(name)
        if not value:
            continue
        shown = safe_text(value, limit=1000)
        if is_there(value) and os.access(value, os.R_OK):
            found.append(Finding("ok", "tls", f"{name}: trusted certificates are read from {shown}"))
        else:
            advice = f"correct {name} or unset it; without certificates every https address is refused"
            found.append(Finding("fail", "tls", f"{name}: cannot be read: {shown}", advice))
    for name in (CLIENT_CERT, CLIENT_KEY):
        if value := environ.get(name):
            shown = safe_text(value, limit=1000)
            if os.path.isfile(value) and os.access(value, os.R_OK):
                found.append(Finding("ok", "tls", f"{name}: who we are is read from {shown}"))
            else:
                found.append(Finding("fail", "tls", f"{name}: cannot be read: {shown}", f"correct {name} or unset it"))
    return found or [Finding("ok", "tls", "the system's trusted certificates are used")]


def permission_findings(project: Project) -> list[Finding]:
    """Whether the assets folder and our own state in it can be written to."""
    return [_writable("assets folder", project.assets_dir), *_state_findings(project.assets_dir)]


def _writable(name: str, folder: Path) -> Finding:
    shown = safe_text(str(folder), limit=1000)
    if os.path.lexists(folder):
        if not folder.is_dir():
            return Finding("fail", "permissions", f"{name}: {shown} is not a folder", "move it away")
        if os.access(folder, os.W_OK | os.X_OK):
            return Finding("ok", "permissions", f"{name}: {shown} is writable")
        return Finding("fail", "permissions", f"{name}: {shown} is not writable", _own_it(folder))
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return Finding("ok", "permissions", f"{name}: {shown} does not exist yet and can be created")
    return Finding(
        "fail", "permissions", f"{name}: {shown} cannot be created in {safe_text(str(above))}", _own_it(above)
    )


def _own_it(folder: Path) -> str:
    return f"make {safe_text(str(folder), limit=1000)} writable for this user, or name another folder with --assets-dir"


def _state_findings(assets_dir: Path) -> list[Finding]:
    state = StateFolder(assets_dir)
    if not os.path.lexists(state.top):
        return []
    places: tuple[tuple[Path, Callable[[], int]], ...] = (
        (state.top / "locks", state.open_locks),
        (state.own, state.open),
    )
    for place, open_folder in places:
        try:
            folder = open_folder()
        except FileNotFoundError:
            if not os.access(state.top, os.W_OK | os.X_OK):
                return [_shut_out(state.top)]
            continue
        except StorageError as error:
            return [Finding("fail", "permissions", f"state folder: {error}", "" if " chmod " in str(error) else _MOVE)]
        try:
            if not system.may_write(folder):
                return [_shut_out(place)]
        finally:
            os.close(folder)
    figures, shown = os.stat(state.top), safe_text(str(state.top), limit=1000)
    if figures.st_mode & 0o022 and not figures.st_mode & stat.S_ISVTX:
        advice = f"chmod +t {shown}, or let its owner run grym-fetch once"
        return [Finding("warn", "permissions", f"state folder: others may rename what is in {shown}", advice)]
    return [Finding("ok", "permissions", f"state folder: {shown} is writable")]


_MOVE = "move it away while nothing runs; that costs unfinished downloads and one hashing of each file"


def _shut_out(folder: Path) -> Finding:
    shown, owner = safe_text(str(folder), limit=1000), user_name(os.stat(folder).st_uid)
    advice = f"chmod g+ws the assets folder and let {owner} run grym-fetch there once, or {_MOVE}"
    return Finding("fail", "permissions", f"state folder: {shown} belongs to {owner} and is not writable", advice)


def liar_findings(project: Project, assets: Sequence[Asset]) -> list[Finding]:
    """Addresses of these assets that have sent wrong bytes to this user before."""
    seen = WrongOrigins(StateFolder(project.assets_dir)).find()
    found = []
    for asset in assets:
        for url in map(redact_url, asset.urls):
            if (when := seen.get((asset.id, url))) is not None:
                day = time.strftime("%Y-%m-%d", time.gmtime(when))
                what = f"{safe_text(url, limit=1000)}: it sent wrong bytes on {day}, which were replaced"
                advice = "tell whoever runs it, or drop it from the entry"
                found.append(Finding("warn", "origin", what, advice, asset.id))
    return found


def space_finding(needed: int, free: int, unknown: int) -> Finding:
    """Compare free space with the bytes still to be fetched; ``unknown`` counts assets of unknown size."""
    figures = {"needed": needed, "free": free}
    more = f", and {unknown} of unknown size" if unknown else ""
    what = f"{format_size(needed)} to be fetched{more}, {format_size(free)} free"
    if needed > free:
        advice = f"free {format_size(needed - free)}, or name a folder on another disk with --assets-dir"
        return Finding("fail", "space", what, advice, figures=figures)
    return Finding("ok", "space", what, figures=figures)


# --- Every address ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Probe:
    """The answer of one address. ``offset``: our clock minus the server's, in seconds."""

    finding: Finding
    host: str
    offset: float | None = None


async def origin_findings(
    assets: Sequence[Asset],
    *,
    environ: Mapping[str, str],
    clock: Clock,
    version: str,
    allow_private: bool = True,
    patience: float = 15.0,
) -> list[Finding]:
    """Ask every address of ``assets`` for one byte. Findings are in the manifest's order, the clock's last."""
    transport = HttpTransport(
        HttpSettings(
            connect_timeout=patience,
            stall_timeout=patience,
            allow_private=allow_private,
            user_agent=f"grym-fetch/{version}",
        )
    )
    requester = Requester(find_credentials(environ), sign=BucketSigner(environ).sign, also_sent=proxy_credentials())
    prober = _Prober(transport, requester, clock)
    places = asyncio.Semaphore(MAX_PROBES)

    async def probe(asset: Asset, number: int, url: str) -> _Probe:
        async with places:
            return await prober.probe(asset, number, url)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                [group.create_task(probe(asset, number, url)) for number, url in enumerate(asset.urls)]
                for asset in assets
            ]
    finally:
        await transport.aclose()
    findings: list[Finding] = []
    offsets: dict[str, float] = {}
    for asset, of_asset in zip(assets, tasks, strict=True):
        probes = [task.result() for task in of_asset]
        found = _softened([probe.finding for probe in probes])
        if asset.is_stand_in:
            found = [replace(f, what=f"stand-in: {f.what}", figures={**f.figures, "stand_in": True}) for f in found]
        findings += found
        offsets |= {probe.host: probe.offset for probe in probes if probe.offset is not None}
    return [*findings, *_clock_findings(offsets)]


def _softened(findings: list[Finding]) -> list[Finding]:
    """Turn failures into warnings if another address of the asset works."""
    if all(finding.level == "fail" for finding in findings):
        return findings
    also = "; other addresses of this asset work"
    return [replace(f, level="warn", what=f.what + also) if f.level == "fail" else f for f in findings]


def _clock_findings(offsets: Mapping[str, float]) -> list[Finding]:
    if not offsets:
        return []
    # Use the server whose clock is nearest to ours: if our clock is wrong, it differs from all of them.
    host, offset = min(offsets.items(), key=lambda item: abs(item[1]))
    figures = {"offset_seconds": round(offset, 1)}
    if abs(offset) <= CLOCK_TOLERANCE_S:
        return [Finding("ok", "clock", "this machine's clock agrees with the servers'", figures=figures)]
    way = "ahead of" if offset > 0 else "behind"
    what = f"this machine's clock is {abs(offset) / 60:.0f} minutes {way} that of {safe_text(host)}"
    advice = "set it (timedatectl set-ntp true); certificates and signed addresses depend on it"
    return [Finding("warn", "clock", what, advice, figures=figures)]


_BROWSER = "open the address in a browser; correct the url in the manifest"
_CHANGED = "the source has changed or is another version: compare, then correct size and checksum"


@dataclass(frozen=True, slots=True)
class _Prober:
    transport: HttpTransport
    requester: Requester
    clock: Clock

    async def probe(self, asset: Asset, number: int, url: str) -> _Probe:
        shown = redact_url(url)
        connection = self.transport.connection()
        origin = Origin(number, url)
        began = self.clock.monotonic()
        try:
            asked = Asked(ByteRange(0, 1), asset.size, checksum=asset.checksum)
            answer = await self.requester.open(connection, origin, asked)
            seconds = self.clock.monotonic() - began
            certificate_ends = connection.certificate_ends
            answer.response.close()
            if isinstance(answer.verdict, UnusableRange):  # then ask for the whole, as a download does
                answer = await self.requester.open(connection, origin, replace(asked, wanted=None))
                answer.response.close()
            head = answer.response.head
        except GrymFetchError as error:
            reason = error.reason if isinstance(error, TransferError) else str(error)
            figures: dict[str, object] = {"url": shown}
            finding = Finding("fail", "origin", f"{shown}: {reason}", _advice_for(error), asset.id, figures)
            return _Probe(finding, shown)
        finally:
            await connection.aclose()
        final = origin.target or URL(url, encoded=True)
        figures = {"url": shown, "status": head.status, "seconds": round(seconds, 3)}
        if not is_resolved_when_asked(url) and final.host != URL(url, encoded=True).host:
            figures["target_host"] = self.requester.secrets.hide(final.host or "")
        offset = _offset(head, self.clock.wall())
        match answer.verdict:
            case ErrorStatus(status=status, reason=reason):
                refusal = answer.refusal or Refusal(reason)
                return _Probe(self._refused(asset, url, status, refusal, figures), final.host or "", offset)
            case Broken(reason=reason) | UnusableRange(reason=reason):
                found = Finding("fail", "origin", f"{shown}: {reason}", _BROWSER, asset.id, figures)
                return _Probe(found, final.host or "", offset)
            case WrongDigest(actual=digest):
                what = f"{shown}: by its own Repr-Digest the server has {digest}, the manifest says {asset.checksum}"
                return _Probe(Finding("fail", "origin", what, _CHANGED, asset.id, figures), final.host or "", offset)
        days = None if certificate_ends is None else int((certificate_ends - self.clock.wall()) // 86400)
        return _Probe(self._served(asset, shown, head, final, days, figures), final.host or "", offset)

    def _refused(self, asset: Asset, url: str, status: int, refusal: Refusal, figures: dict[str, object]) -> Finding:
        shown, advice = redact_url(url), refusal.advice
        if refusal.variable:
            figures["variable"] = refusal.variable
        reason = refusal.reason
        if status == 403 and not advice:
            advice = "see that the account has access"
        if status in (404, 410) and not advice:
            reason += ": there is no such file"
            advice = "correct the url in the manifest, or replace it by a fallback that works"
        elif status == 429 or (status >= 500 and status != 511):
            advice = "the server is busy or broken; try again later, or add a fallback url"
        advice = advice or _BROWSER
        check = "token" if status in (401, 403) else "origin"
        return Finding("fail", check, f"{shown}: {reason}", advice, asset.id, figures)

    def _served(
        self,
        asset: Asset,
        shown: str,
        head: ResponseHead,
        final: URL,
        days: int | None,
        figures: dict[str, object],
    ) -> Finding:
        size, ranges = _size_of(head), head.status == 206 or head.status == 416
        validator = head.validator
        kind = "strong" if validator.is_strong else "weak" if validator else "none"
        digests = [name for name in DIGEST_FIELDS if head.get(name) is not None]
        figures |= {"size": size, "ranges": ranges, "validator": kind, "digests": digests}
        parts = [f"status {head.status}", f"{size:,} bytes" if size is not None else "size not said"]
        parts += ["ranges" if ranges else "no ranges", f"validator {kind}"]
        parts.append(", ".join(digests) if digests else "no digest fields")
        warning = advice = ""
        if final.scheme == "https":
            figures |= {"tls": "verified", "certificate_days": days}
            parts.append("TLS verified" + (f", certificate good for {days} days" if days is not None else ""))
            if days is not None and days < MIN_CERTIFICATE_DAYS:
                warning, advice = f"its certificate ends in {days} days", "tell whoever runs the server"
        elif not is_loopback(final):
            parts.append("no TLS")
        parts.append(f"first byte after {figures['seconds']} s")
        if "target_host" in figures:
            parts.append(f"redirected to {safe_text(str(figures['target_host']))}")
        what = f"{shown}: {', '.join(parts)}"
        if asset.size is not None and size is not None and size != asset.size:
            hint = length_hint(head, size, asset.size)
            what = f"{shown}: the server has {size:,} bytes, the manifest says {asset.size:,}{hint and '; '}{hint}"
            return Finding("fail", "origin", what, _CHANGED, asset.id, figures)
        if not ranges:
            warning = "it serves no ranges, so one connection fetches all and a broken download starts over"
            advice = "prefer a server with ranges as the primary url"
        elif not asset.pinned and kind != "strong":
            warning = "no checksum and no strong ETag, so parts cannot be combined"
            advice = f"run `{command_line('grym-fetch', 'pin', names=(asset.id,))}`"
        if warning:
            return Finding("warn", "origin", f"{what}; {warning}", advice, asset.id, figures)
        return Finding("ok", "origin", what, "", asset.id, figures)


def _size_of(head: ResponseHead) -> int | None:
    content_range = parse_content_range(head.get("content-range") or "")
    if content_range is not None:
        return content_range.total
    length = head.get("content-length")
    return parse_length(length) if head.status == 200 and length is not None else None


def _offset(head: ResponseHead, now: float) -> float | None:
    try:
        return now - parsedate_to_datetime(head.get("date") or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _advice_for(error: GrymFetchError) -> str:
    if isinstance(error, CertificateRejected):
        if CLIENT_CERT in error.reason:
            return f"set {CLIENT_CERT} and {CLIENT_KEY} to a certificate that the server accepts, or unset them"
        return "check the clock; for a private authority set SSL_CERT_FILE to its certificates"
    if isinstance(error, ProxyRefused):
        return "correct HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, or name the host in NO_PROXY"
    if isinstance(error, PolicyRefused):
        # Of a bucket, what could not be made is the signature.
        return "set it where this runs" if is_bucket_address(error.url) else "correct the url in the manifest"
    return "check the network and the proxy settings, and that the host name is right"
