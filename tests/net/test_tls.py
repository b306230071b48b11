"""When a certificate ends, as far as anybody can tell."""

from __future__ import annotations

import asyncio

import pytest

from grym_fetch.net.tls import certificate_expiry


class Shown(asyncio.BaseTransport):
    """A transport whose other side has shown this certificate."""

    def __init__(self, certificate: dict[str, str] | None) -> None:
        super().__init__({"peercert": certificate})


@pytest.mark.parametrize(
    ("certificate", "ends"),
    [
        ({"notAfter": "Jan  5 09:34:43 2018 GMT"}, 1515144883.0),
        ({"notAfter": "some day"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_when_it_ends(certificate: dict[str, str] | None, ends: float | None) -> None:
    """Without TLS, or with a date that cannot be read, nobody knows."""
    assert certificate_expiry(Shown(certificate)) == ends
