"""What `grym_fetch.runtime.system_linux` is with this folder in PYTHONPATH: the code of macOS's module."""

from __future__ import annotations

import sys
from typing import Any

_site: Any = sys.modules["sitecustomize"]
exec(compile(_site.MACOS.read_text(encoding="utf-8"), str(_site.MACOS), "exec"))
sysctl, unsent_bytes = _site.boot_session, _site.unsent
