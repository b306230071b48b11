"""A real tinyproxy on the loopback interface, as a second opinion on what a proxy does.

Rules: everything it writes is in the given folder; it runs as the current user and dies with its test. A log record
is written before it connects to the server, so it is there when the answer is.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

from tests.support.system import is_listening

BINARY = shutil.which("tinyproxy") or shutil.which("tinyproxy", path="/usr/sbin:/usr/local/sbin")

_CONFIG = """
Port {port}
Listen 127.0.0.1
Timeout 20
MaxClients 20
LogFile "{home}/log"
LogLevel Connect
PidFile "{home}/pid"
{more}
"""


class TinyProxy:
    """One tinyproxy. If ``login`` and ``password`` are given, it requires them."""

    def __init__(self, home: Path, login: str = "", password: str = "") -> None:
        self._home = home / "tinyproxy"
        self._home.mkdir()
        self._more = f"BasicAuth {login} {password}" if login else ""
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        assert BINARY is not None, "tinyproxy is not installed"
        for _ in range(5):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            config = self._home / "conf"
            config.write_text(_CONFIG.format(port=self.port, home=self._home, more=self._more))
            self._process = subprocess.Popen(
                [BINARY, "-d", "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if is_listening(self._process, self.port):
                return self
            self.__exit__()
        raise RuntimeError("tinyproxy does not start")

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def url(self, userinfo: str = "") -> str:
        """The value for an environment variable."""
        return f"http://{userinfo}{'@' if userinfo else ''}127.0.0.1:{self.port}"

    def asked(self) -> list[str]:
        """The method and target of each request so far."""
        return re.findall(r"Request \(file descriptor \d+\): (\S+ \S+) HTTP", (self._home / "log").read_text())
