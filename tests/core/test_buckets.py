"""Addresses of objects in buckets."""

from __future__ import annotations

import pytest

from grym_fetch.core.buckets import BucketAddress, bucket_advice, is_bucket_address


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("s3://models/a/b.bin", "models", "a/b.bin"),
        ("gs://my.models_1/a%20b+c.bin", "my.models_1", "a b+c.bin"),
        ("az://models/%C3%BC", "models", "ü"),
    ],
)
def test_it_names_a_bucket_and_a_key(text: str, bucket: str, key: str) -> None:
    """The key is written percent-encoded."""
    found = BucketAddress.parse(text)
    assert (found.bucket, found.key) == (bucket, key)
    assert BucketAddress.parse(str(found)) == found
    assert is_bucket_address(text)
    assert bucket_advice(text).startswith("set ")
    assert bucket_advice(text, is_missing=True).startswith("see that bucket and key are right")


@pytest.mark.parametrize(
    "text",
    [
        "s3://models", "s3://models/", "s3:///a", "s3://me:pw@models/a", "s3://models:9000/a", "s3://models/a?x=1",
        "s3://models/a#x", "s3://models/a b", "s3://models/%ff", "s3://models/a//b", "s3://models/../other/a",
        "s3://models/a/%2e%2e/b", "S3://models/a", "s3://MODELS/a", "s3://models/a\\b", "s3://models/a%00b",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    """What stores and clients read differently, or what has no meaning there."""
    with pytest.raises(ValueError, match=r"is not the address|has "):
        BucketAddress.parse(text)


@pytest.mark.parametrize("text", ["s3://b/k", "s3://ab/k", "gs://-models/k", "s3://MODELS/a", f"az://{'x' * 224}/k"])
def test_a_bucket_name_that_cannot_be_is_named_as_the_cause(text: str) -> None:
    """Rather than the form of the address, which is right."""
    with pytest.raises(ValueError, match="a bucket's name has 3 to 223"):
        BucketAddress.parse(text)
