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
    assert bucket_advice(text, is_missing=True).startswith("see that bucket and key are right; if it is not public")


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_keys_that_are_set_are_not_asked_for_again(scheme: str) -> None:
    """What was signed and is refused all the same has keys: they may be wrong."""
    advice = bucket_advice(f"{scheme}://models/a", is_signed=True)
    assert advice.startswith("see that ")
    assert "set " not in bucket_advice(f"{scheme}://models/a", is_signed=True, is_missing=True).replace("are set", "")


@pytest.mark.parametrize("text", ["s3://models/a?versionId=1", "gs://models/a#x"])
def test_a_query_is_named_as_the_cause(text: str) -> None:
    """It has no meaning there, but may be part of a name."""
    with pytest.raises(ValueError, match=r"has a \? or a #, .* as %3F and %23"):
        BucketAddress.parse(text)


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
