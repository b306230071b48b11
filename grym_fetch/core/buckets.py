"""Addresses in buckets: ``s3://BUCKET/KEY``, ``gs://BUCKET/KEY``, ``az://CONTAINER/BLOB``.

Rule: a key is written percent-encoded, as in other addresses; a query, a login or a port there has no meaning and is
refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

SCHEMES = ("s3", "gs", "az")
BUCKET_RULE = "s3://BUCKET/KEY, gs://BUCKET/KEY or az://CONTAINER/BLOB"
INSTANCE_ROLE = "GRYM_FETCH_INSTANCE_ROLE"
"""The variable that lets a cloud be asked for the credentials of this machine. Not a setting: it has no option."""
_MACHINE = f"{INSTANCE_ROLE}=1 uses the role of this machine"
_ADVICE = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and AWS_REGION to the bucket's region; "
    f"{_MACHINE}",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the key file of a service account, or "
    f"GRYM_FETCH_TOKEN_STORAGE_GOOGLEAPIS_COM to a token (gcloud auth print-access-token); {_MACHINE}",
    "az": f"set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN; {_MACHINE}",
}
_CHECK = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, are right, AWS_REGION is the bucket's region",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS is right",
    "az": "AZURE_STORAGE_ACCOUNT_KEY is that of AZURE_STORAGE_ACCOUNT_NAME, or AZURE_STORAGE_SAS_TOKEN has not expired",
}
_FORM = re.compile(r"(?P<scheme>s3|gs|az)://(?P<bucket>[A-Za-z0-9._-]+)/(?P<key>[!-\[\]-~]+)", re.ASCII)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,221}[a-z0-9]", re.ASCII)
_BUCKET_NAME_RULE = (
    "a bucket's name has 3 to 223 of a-z, 0-9, '.', '_' and '-', and begins and ends with a letter or digit"
)


def is_bucket_address(text: str) -> bool:
    """Whether an address begins with the scheme of a bucket."""
    return text.startswith(("s3://", "gs://", "az://"))


def bucket_advice(address: str, *, is_missing: bool = False, is_signed: bool = False) -> str:
    """Say where the keys for a bucket are taken from; or, if keys have signed the address, what may be wrong with them.

    ``is_missing``: the server has no such object. Some also say so to those who may not know what there is.
    """
    scheme = address.partition(":")[0]
    name = "see that bucket and key are right"
    if is_signed and is_missing:
        return f"{name}, and that the keys that are set may read it"
    if is_signed:
        return f"see that {_CHECK[scheme]}, that these keys may read it, and that this machine's clock is right"
    return f"{name}; if it is not public: {_ADVICE[scheme]}" if is_missing else _ADVICE[scheme]


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """Where an object is. ``key`` is decoded."""

    scheme: str
    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> BucketAddress:
        """Read an address. Raises `ValueError` with what is allowed; the address is not repeated."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"is not the address of an object in a bucket; allowed: {BUCKET_RULE}")
        if "?" in match["key"] or "#" in match["key"]:
            raise ValueError("has a ? or a #, which an address in a bucket has only as %3F and %23, in its key")
        if not _BUCKET.fullmatch(match["bucket"]):
            raise ValueError(f"is not the address of an object in a bucket: {_BUCKET_NAME_RULE}")
        try:
            key = unquote(match["key"], errors="strict")
        except ValueError:
            raise ValueError("has a % that is not followed by UTF-8") from None
        if "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
            # Clients and servers disagree on what these mean.
            raise ValueError("has an empty part, a . or a .. in its key")
        return cls(match["scheme"], match["bucket"], key)

    @property
    def path(self) -> str:
        """The key as a path, encoded."""
        return quote(self.key, safe="/~")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.path}"
