"""Which cases of a test run each time, and which only in the sweep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def typical(values: Iterable[Any], *kept: Any) -> list[Any]:
    """All of these for ``parametrize``; those not ``kept`` are left to `make sweep`."""
    return [value if value in kept else pytest.param(value, marks=pytest.mark.sweep) for value in values]
