"""How many examples a property test tries, and under which conditions: one Hypothesis profile for all of them.

`tests/conftest.py` loads the profile before any test module is imported. ``HYPOTHESIS_PROFILE`` names it: ``dev`` by
default, ``ci`` where ``CI`` is set, ``sweep`` for `make sweep` (several times as many), and ``guards`` where a guard is
taken out. Where ``CI`` is set, and for guards, each run tries the same examples.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

USUAL = 100
"""Examples of a property that asks for no number of its own."""

_TIMES = {"dev": 0.2, "ci": 0.2, "guards": 1.0, "sweep": 4.0}
"""By profile: the factor for the number of examples that a property asks for."""


def load_profile() -> None:
    """Make the profile of this run the default of every property test."""
    for name, times in _TIMES.items():
        settings.register_profile(
            name,
            max_examples=round(USUAL * times),
            # The time that an example takes, and that making one takes, depends on the machine's load, not on the code.
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            derandomize=bool(os.environ.get("CI")) or name == "guards",
            # Nobody reads the smallest example of a deliberate break, and finding it takes half a minute.
            phases=[phase for phase in Phase if name != "guards" or phase not in (Phase.shrink, Phase.explain)],
            # No run depends on earlier ones: a failure is repeated from its output, or becomes an `@example`.
            database=None,
            print_blob=True,
        )
    settings.load_profile(_name())


def examples(count: int) -> settings:
    """This many examples, times the profile's factor; at least ten."""
    return settings(max_examples=max(10, round(count * _TIMES[_name()])))


def _name() -> str:
    return os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
