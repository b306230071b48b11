"""Buckets on loopback: a real S3 server, moto's, in a thread of this process; and what Azure and Google check.

Rule: moto keeps objects in memory and knows any keys; its log tells what was asked.
"""

from __future__ import annotations

import base64
import hmac
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from yarl import URL

from tests.support.hubs import HubRequest

KEY_ID, SECRET = "AKIDEXAMPLE0000", "secret-key-of-the-test-0123456789"

_GET = re.compile(r"GET (\S+) HTTP")


@dataclass
class S3Server:
    """One server. ``asked`` has the path and query of each GET, in order."""

    endpoint: str
    asked: list[URL]

    def environment(self) -> dict[str, str]:
        """What leads the command and the library there, with keys."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "eu-central-1",
        }

    def add(self, bucket: str, key: str, content: bytes) -> str:
        """Store an object, in a new bucket if there is none; return its address."""
        from moto.s3.models import s3_backends

        backend = s3_backends["123456789012"]["aws"]
        if bucket not in backend.buckets:
            backend.create_bucket(bucket, "eu-central-1")
        backend.put_object(bucket, key, content)
        return f"s3://{bucket}/{key}"


class _Listener(logging.Handler):
    """Keeps the requests for objects that the server logs."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[URL] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the address of a GET."""
        if (match := _GET.search(record.getMessage())) is not None:
            self.asked.append(URL(match[1], encoded=True))


@contextmanager
def serving_s3() -> Iterator[S3Server]:
    """Start a server; stop it at the end, with all that it holds."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer
    from moto.s3.models import s3_backends

    log = logging.getLogger("werkzeug")
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=True)
    listener = _Listener()
    before = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(listener)
    running.start()
    try:
        host, port = running.get_host_and_port()
        yield S3Server(f"http://{host}:{port}", listener.asked)
    finally:
        running.stop()
        log.removeHandler(listener)
        log.level, log.propagate = before
        s3_backends.reset()


def shared_by(account_key: str, request: HubRequest, now: datetime) -> bool:
    """Whether a request to read a blob bears a service SAS of this key that holds now.

    https://learn.microsoft.com/rest/api/storageservices/create-service-sas
    """
    query = request.query
    text = [query.get("sp"), query.get("st"), query.get("se"), f"/blob{request.path}", "", "", "", query.get("sv"), "b"]
    signed_text = "\n".join([part or "" for part in text] + [""] * 7)
    digest = hmac.digest(base64.b64decode(account_key), signed_text.encode(), "sha256")
    if query.get("sig") != base64.b64encode(digest).decode():
        return False
    return datetime.fromisoformat(query["st"]) <= now < datetime.fromisoformat(query["se"])
