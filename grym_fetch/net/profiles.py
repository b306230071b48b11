"""Keys, region and endpoint of S3 from the environment and the files of the ``aws`` command, in its order.

Rule: only what is written there is read. A profile that gets its keys elsewhere (single sign-on, a program) has none
for us.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class S3Access:
    """How to reach S3. ``key_id`` is empty if there are no keys. The repr shows no secret.

    ``missing_profile`` is the profile that is named, and would be needed, but is not there.
    """

    key_id: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    region: str = "us-east-1"
    endpoint: str = ""
    missing_profile: str = ""


def find_s3_access(environ: Mapping[str, str]) -> S3Access:
    """Return the keys of the environment, else those of the profile; region and endpoint likewise."""
    profile = _profile(environ)
    if environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"):
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        key_id, secret, token = (environ.get(name, "").strip() for name in names)
    else:
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        key_id, secret, token = (profile.get(name, "").strip() for name in names)
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or profile.get("region") or "us-east-1"
    endpoint = (
        environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or profile.get("endpoint_url") or ""
    )
    if not (key_id and secret):
        key_id = secret = token = ""
    missing = "" if key_id or profile else _named_profile(environ)
    return S3Access(key_id, secret, token, region.strip(), endpoint.strip().rstrip("/"), missing)


def _named_profile(environ: Mapping[str, str]) -> str:
    return environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or ""


def _profile(environ: Mapping[str, str]) -> Mapping[str, str]:
    name = _named_profile(environ) or "default"
    home = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".aws")
    config = _read(environ.get("AWS_CONFIG_FILE") or os.path.join(home, "config"))
    credentials = _read(environ.get("AWS_SHARED_CREDENTIALS_FILE") or os.path.join(home, "credentials"))
    section = name if name == "default" else f"profile {name}"
    return {**config.get(section, {}), **credentials.get(name, {})}


def _read(path: str) -> dict[str, dict[str, str]]:
    """The sections of a file; none if it cannot be read."""
    parser = configparser.RawConfigParser(strict=False, default_section="\0")
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            parser.read_string(file.read(MAX_FILE_BYTES))
    except (OSError, ValueError, configparser.Error):
        return {}
    return {name: dict(parser[name]) for name in parser.sections()}
