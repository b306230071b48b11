"""The files of the ``aws`` command."""

from __future__ import annotations

from pathlib import Path

import pytest

from grym_fetch.net.profiles import find_s3_access


def test_keys_come_from_one_place(tmp_path: Path) -> None:
    """A key id of the environment is never used with the secret of a file."""
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = FILE\naws_secret_access_key = of-the-file\naws_session_token = t\n")
    environ = {"HOME": str(tmp_path), "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    found = find_s3_access(environ | {"AWS_ACCESS_KEY_ID": "ENV"})
    assert (found.key_id, found.secret, found.session_token) == ("FILE", "of-the-file", "t")
    found = find_s3_access(environ | {"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "of-the-environment"})
    assert (found.key_id, found.secret, found.session_token) == ("ENV", "of-the-environment", "")
    assert "of-the-environment" not in repr(found)


@pytest.mark.parametrize("data", [b"", b"[default", b"\xff\xfe", b"[default]\naws_access_key_id = only\n", b"x = 1\n"])
def test_a_file_that_cannot_be_read_has_no_keys(tmp_path: Path, data: bytes) -> None:
    """It is as if it were not there."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_bytes(data)
    found = find_s3_access({"HOME": str(tmp_path)})
    assert (found.key_id, found.secret, found.region, found.endpoint) == ("", "", "us-east-1", "")


@pytest.mark.posix
def test_where_the_files_are_and_which_part_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the home folder, unless named; a variable comes before a file, and a profile is one part of both files."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = A\naws_secret_access_key = a\n"
        "[work]\naws_access_key_id = B\naws_secret_access_key = b\n"
    )
    config = "[default]\nregion = eu-1\n[profile work]\nregion = eu-2\nendpoint_url = https://s3.example/\n"
    (tmp_path / ".aws/config").write_text(config)
    (tmp_path / "other").write_text(config.replace("eu-", "us-"))
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    home = {"HOME": str(tmp_path)}

    def found(environ: dict[str, str]) -> tuple[str, str, str]:
        access = find_s3_access(environ)
        return access.key_id, access.region, access.endpoint

    assert found(home) == ("A", "eu-1", "")
    assert found(home | {"AWS_PROFILE": "work"}) == ("B", "eu-2", "https://s3.example")
    assert found(home | {"AWS_DEFAULT_PROFILE": "work", "AWS_REGION": "x"}) == ("B", "x", "https://s3.example")
    assert found(home | {"AWS_CONFIG_FILE": str(tmp_path / "other")}) == ("A", "us-1", "")
    assert find_s3_access(home | {"AWS_PROFILE": "wrok"}).missing_profile == "wrok"
    assert not find_s3_access(home | {"AWS_PROFILE": "work"}).missing_profile
    monkeypatch.setenv("HOME", str(tmp_path))
    assert found({"AWS_DEFAULT_REGION": "y", "AWS_ENDPOINT_URL": "https://e"}) == ("A", "y", "https://e")
