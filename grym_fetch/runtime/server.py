"""Whether the server that the program runs in is stopping.

uvicorn, when told to stop, first waits for every connection, and only then lets the application close anything. An
endless response must therefore notice by itself. Rule: signals stay the server's own; it is only looked at.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any


def stopping() -> Callable[[], bool] | None:
    """Return a function that says whether the server is stopping; None if no server of a known kind runs here.

    uvicorn handles signals with a method of its server, whose ``should_exit`` says it.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        server: Any = getattr(signal.getsignal(number), "__self__", None)
        if isinstance(getattr(server, "should_exit", None), bool):
            return lambda: bool(server.should_exit)
    return None
