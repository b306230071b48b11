"""When a certificate expires, as far as can be told."""

from __future__ import annotations

import asyncio

import pytest

from grym_fetch.net.tls import certificate_expiry


class Shown(asyncio.BaseTransport):
    """A transport whose peer has shown this certificate."""

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
    """Without TLS, or with an unreadable date, the end is unknown."""
    assert certificate_expiry(Shown(certificate)) == ends
