"""What systems do differently, under one name each. Which module does it is chosen here, and nowhere else.

Rule: a function does what its docstring in `system_linux` says, or the nearest thing that the system has; its own
docstring then says what is different. Where a system has nothing, the function does nothing, and the caller copes.
"""

from __future__ import annotations

import sys

if sys.platform == "darwin":
    from grym_fetch.runtime.system_darwin import (
        MAX_OPEN_FILES,
        boot_id,
        copy_in_kernel,
        current_umask,
        exchange,
        flush,
        flush_everything,
        process_start,
        read_again,
        read_ahead,
        unsent_bytes,
    )
else:
    from grym_fetch.runtime.system_linux import (
        MAX_OPEN_FILES,
        boot_id,
        copy_in_kernel,
        current_umask,
        exchange,
        flush,
        flush_everything,
        process_start,
        read_again,
        read_ahead,
        unsent_bytes,
    )

__all__ = [
    "MAX_OPEN_FILES",
    "boot_id",
    "copy_in_kernel",
    "current_umask",
    "exchange",
    "flush",
    "flush_everything",
    "process_start",
    "read_again",
    "read_ahead",
    "unsent_bytes",
]
