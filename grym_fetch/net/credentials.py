"""Logins and tokens from the user's own files: `netrc`, and the token file of the ``hf`` command."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping

from grym_fetch.core.addresses import Credentials
from grym_fetch.runtime import system

MAX_TOKEN_FILE_BYTES = 64 * 1024
_TOKEN = re.compile(r"[!-~]{1,16384}", re.ASCII)


def find_credentials(environ: Mapping[str, str]) -> Credentials:
    """Return every credential that the environment and the user's files hold."""
    return Credentials(environ, read_netrc(environ), stored_hf_token=read_hf_token(environ))


def read_hf_token(environ: Mapping[str, str]) -> str:
    """Return the token that ``hf auth login`` has stored; empty if there is none, or it must not be used.

    Like `huggingface_hub`, look in ``HF_TOKEN_PATH``, else for ``token`` in ``HF_HOME``, else in the user's cache.
    """
    if environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in ("1", "ON", "YES", "TRUE"):
        return ""
    cache = environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    path = os.path.expandvars(os.path.expanduser(environ.get("HF_TOKEN_PATH") or os.path.join(home, "token")))
    try:
        descriptor = system.open_descriptor(path, os.O_RDONLY | system.O_NONBLOCK)
        try:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            text = os.read(descriptor, MAX_TOKEN_FILE_BYTES).decode("utf-8").strip() if is_file else ""
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return ""
    return text if _TOKEN.fullmatch(text) else ""


def read_netrc(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return login and password by exact host name, from ``NETRC`` or ``~/.netrc``; empty if unreadable.

    Only its owner may be able to read the file, as ftp requires. Its ``default`` entry is ignored: it would give a
    password to every host.
    """
    import netrc

    path = environ.get("NETRC") or os.path.expanduser("~/.netrc")
    try:
        if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
            return {}
        hosts = netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError, ValueError):
        return {}
    return {host.lower(): (login, password or "") for host, (login, _, password) in hosts.items() if host != "default"}
