"""Debian's `docker-registry` on the loopback interface, with or without a token to be fetched first.

Rules: everything it writes is in the given folder; it runs as the current user and dies with its test.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Self
from urllib.parse import urljoin

from tests.support.nginx import free_port
from tests.support.system import is_listening

BINARY = shutil.which("docker-registry")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {home}/data}}, delete: {{enabled: false}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


class DockerRegistry:
    """One registry."""

    def __init__(self, home: Path) -> None:
        self._home = home / "registry"
        self._home.mkdir()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        assert BINARY is not None, "docker-registry is not installed"
        for _ in range(5):
            self.port = free_port()
            config = self._home / "config.yml"
            config.write_text(_CONFIG.format(home=self._home, port=self.port))
            self._process = subprocess.Popen(
                [BINARY, "serve", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"OTEL_TRACES_EXPORTER": "none"},
            )
            if is_listening(self._process, self.port):
                return self
            self.__exit__()
        raise RuntimeError("docker-registry does not start")

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def push(self, repo: str, tag: str, files: dict[str, bytes]) -> str:
        """Store files as ORAS does, each as a layer with its name; return the manifest's digest."""
        layers = [
            {
                "mediaType": "application/octet-stream",
                "digest": self._blob(repo, content),
                "size": len(content),
                "annotations": {"org.opencontainers.image.title": name},
            }
            for name, content in files.items()
        ]
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": self._blob(repo, b"{}"), "size": 2}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        body = json.dumps(manifest).encode()
        self._send("PUT", f"/v2/{repo}/manifests/{tag}", body, MANIFEST)
        return f"sha256:{hashlib.sha256(body).hexdigest()}"

    def _blob(self, repo: str, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        place = self._send("POST", f"/v2/{repo}/blobs/uploads/", b"", "application/octet-stream")
        self._send("PUT", f"{place}&digest={digest}", content, "application/octet-stream")
        return digest

    def _send(self, method: str, path: str, body: bytes, kind: str) -> str:
        """Send a request; return where it says to go on."""
        url = urljoin(f"http://{self.host}", path)
        request = urllib.request.Request(url, body, {"Content-Type": kind}, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return str(answer.headers.get("Location", ""))
