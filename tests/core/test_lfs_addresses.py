"""Addresses of objects on Git LFS servers."""

from __future__ import annotations

import pytest

from grym_fetch.core.lfs_addresses import LfsAddress, is_resolved_when_asked
from grym_fetch.core.manifest_values import check_address

OID = "4d" * 32
GOOD = f"lfs://git.example:8443/org/model.git/info/lfs/{OID}/1000"


def test_an_address_names_server_content_and_size() -> None:
    """It is read, and written again as it was."""
    address = LfsAddress.parse(GOOD)
    assert address == LfsAddress("git.example:8443/org/model.git/info/lfs", OID, 1000)
    assert str(address) == GOOD
    assert check_address(GOOD) == GOOD
    assert [is_resolved_when_asked(each) for each in (GOOD, "s3://bucket/key", "https://h.example/")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"lfs://git.example/{OID}", "allowed: lfs://HOST/ORG"),
        (f"lfs://git.example/x/{OID[1:]}/1", "allowed: lfs://HOST/ORG"),
        (f"lfs://git.example/x/{OID}/01", "allowed: lfs://HOST/ORG"),
        (f"lfs://git.example/x/{OID}/{10**18}", "allowed: lfs://HOST/ORG"),
        (f"lfs://user:secret@git.example/x/{OID}/1", "allowed: lfs://HOST/ORG"),
        (f"lfs://git.example/x?token=secret/{OID}/1", "allowed: lfs://HOST/ORG"),
        (f"lfs://git.example/a b/{OID}/1", "allowed: lfs://HOST/ORG"),
        (f"lfs://git_.-/x/{OID}/1", "host that is not a valid name"),
        (f"lfs://git.example:0/x/{OID}/1", "port"),
    ],
)
def test_other_addresses_are_refused(text: str, reason: str) -> None:
    """The error says what is allowed, and repeats nothing."""
    with pytest.raises(ValueError, match=reason) as caught:
        check_address(text)
    assert "secret" not in str(caught.value)
