"""The TLS of a server that this process trusts."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme


def trusted_tls(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "127.0.0.1") -> ssl.SSLContext:
    """Return the TLS of a server with this name; from now on ``SSL_CERT_FILE`` names its authority.

    ``server.pem`` in the folder has its certificate and key.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.issue_cert(name)
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    certificate.configure_cert(context)
    return context
