"""Logins from the user's `netrc` file."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping


def read_netrc(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return login and password by exact host name, from ``NETRC`` or ``~/.netrc``; empty if unreadable.

    Only its owner may be able to read the file, as ftp demands. Its ``default`` entry is ignored: it would hand a
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
