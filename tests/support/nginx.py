"""A real nginx on the loopback interface, as a second opinion on what a server does.

Rules: everything it writes is in the given folder; it runs as the current user and dies with its test. A log record
is written when a request is over for nginx, which may be after it is over for the client: so `sent` waits for as many
as the test expects.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.system import is_listening

BINARY = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

_DEADLINE = 60.0
_RECORD = re.compile(r'(\S+) (\S+) (\d{3}) (\d+) "([^"]*)" (\d+)')
_CONFIG = """
daemon off;
master_process off;
pid {home}/nginx.pid;
error_log {home}/error.log info;
events {{ worker_connections 128; }}
http {{
    log_format told '$request_method $uri $status $body_bytes_sent "$http_range" $remote_port';
    access_log {home}/access.log told;
    sendfile on;
    limit_conn_zone $server_port zone=clients:1m;
    {zones}
    {more}
    default_type application/octet-stream;
    client_body_temp_path {home}/temp; proxy_temp_path {home}/temp; fastcgi_temp_path {home}/temp;
    uwsgi_temp_path {home}/temp; scgi_temp_path {home}/temp;
    server {{
        listen {address}:{port}{tls};
        root {root};
        keepalive_timeout 75;
        {locations}
    }}
}}
"""


@dataclass(frozen=True)
class Location:
    """One path, and how nginx serves it differently from the default.

    ``limit_rate`` in bytes per second and connection. ``limit_conn``: simultaneous requests, ``limit_req``: requests a
    second; one too many is refused with ``refusal``. ``ranges`` False: nginx ignores Range. ``fields``: more fields for
    its answers, as ``add_header`` takes them. ``status`` is answered instead of the file; ``redirect`` is an address,
    answered with ``status`` or 302. A path that ends in a slash stands for everything below it.
    """

    path: str
    limit_rate: int | None = None
    ranges: bool = True
    fields: tuple[str, ...] = ()
    status: int | None = None
    redirect: str | None = None
    limit_conn: int | None = None
    limit_req: int | None = None
    refusal: int = 503
    lines: tuple[str, ...] = ()
    """Further directives."""

    def directives(self) -> str:
        """The block for the configuration."""
        lines = list(self.lines)
        if self.limit_rate is not None:
            lines.append(f"limit_rate {self.limit_rate};")
        if self.limit_conn is not None:
            lines.append(f"limit_conn clients {self.limit_conn}; limit_conn_status {self.refusal};")
        if self.limit_req is not None:
            lines.append(f"limit_req zone=often{self.limit_req}; limit_req_status {self.refusal};")
        lines += [f"add_header {field};" for field in self.fields]
        if not self.ranges:
            lines.append("max_ranges 0;")
        if self.redirect is not None:
            lines.append(f"return {self.status or 302} {self.redirect};")
        elif self.status is not None:
            lines.append(f"return {self.status};")
        match = "" if self.path.endswith("/") else "= "
        return f"location {match}{self.path} {{ {' '.join(lines)} }}"


@dataclass(frozen=True)
class Sent:
    """One record of the access log. ``range`` is the request's field, None if it had none."""

    method: str
    path: str
    status: int
    body_bytes: int
    range: str | None
    remote_port: int


class Nginx:
    """One nginx. ``root`` is the folder it serves; files can be put there at any time.

    ``certificate``: a PEM file with its key and chain; it then speaks only TLS 1.3. ``more``: directives beside the
    server; ``inside``: in it. ``address``: where it listens, for a test that needs several addresses of this machine.
    """

    def __init__(
        self,
        home: Path,
        locations: Sequence[Location] = (),
        *,
        certificate: Path | None = None,
        more: str = "",
        inside: str = "",
        address: str = "127.0.0.1",
    ) -> None:
        self._certificate = certificate
        self._more = more
        self._inside = inside
        self._address = address
        self._home = home / "nginx"
        self.root = self._home / "root"
        self.locations = tuple(locations)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        for folder in (self.root, self._home / "temp"):
            folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> Self:
        """Start it; return once it answers."""
        assert BINARY is not None, "nginx is not installed"
        assert self._process is None, "it runs already"
        for _ in range(5):
            self.port = self.port or free_port()
            config = self._home / "nginx.conf"
            locations = "\n        ".join([location.directives() for location in self.locations] + [self._inside])
            config.write_text(
                _CONFIG.format(
                    home=self._home,
                    root=self.root,
                    port=self.port,
                    tls=self._tls(),
                    locations=locations,
                    zones=self._zones(),
                    more=self._more,
                    address=self._address,
                )
            )
            self._process = subprocess.Popen(
                [BINARY, "-p", str(self._home), "-c", str(config), "-e", str(self._home / "error.log")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if is_listening(self._process, self.port):
                return self
            self.stop()
            self.port = 0  # somebody else took this port first
        raise RuntimeError(f"nginx does not start:\n{(self._home / 'error.log').read_text()}")

    def _zones(self) -> str:
        rates = {location.limit_req for location in self.locations if location.limit_req is not None}
        return " ".join(f"limit_req_zone $server_port zone=often{n}:1m rate={n}r/s;" for n in sorted(rates))

    def _tls(self) -> str:
        if self._certificate is None:
            return ""
        pem = self._certificate
        return f" ssl;\n        ssl_certificate {pem}; ssl_certificate_key {pem}; ssl_protocols TLSv1.3"

    def stop(self) -> None:
        """Stop it: gracefully or, if that fails, at once."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self, *locations: Location) -> None:
        """Continue serving, at the same address, with these locations."""
        self.stop()
        self.locations = locations
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"{'http' if self._certificate is None else 'https'}://127.0.0.1:{self.port}{path}"

    def add(self, path: str, content: bytes) -> str:
        """Put a file there; return its address."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return self.url(path)

    def sent(self, at_least: int = 0) -> list[Sent]:
        """Every finished request, in order; waits until there are ``at_least`` this many."""
        deadline = time.monotonic() + _DEADLINE
        while True:
            records = self._records()
            if len(records) >= at_least:
                return records
            assert time.monotonic() < deadline, f"nginx has served {len(records)} requests, not {at_least}"
            time.sleep(0.005)

    def _records(self) -> list[Sent]:
        try:
            text = (self._home / "access.log").read_text()
        except FileNotFoundError:
            return []
        matches = [_RECORD.fullmatch(line) for line in text.splitlines()]
        return [
            Sent(m[1], m[2], int(m[3]), int(m[4]), None if m[5] == "-" else m[5], int(m[6]))
            for m in matches
            if m is not None
        ]

    def bytes_sent(self, path: str) -> int:
        """Body bytes sent for a path, over all requests."""
        return sum(record.body_bytes for record in self.sent() if record.path == path)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
