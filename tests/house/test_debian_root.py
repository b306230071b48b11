"""The Debian root of `make test-debian` is a machine on which no test is skipped for want of a program."""

from __future__ import annotations

import re

from tools.debian_root import CHECKOUT, NOT_IN_EVERY_SUITE, PROGRAMS


def test_what_ci_installs_is_in_the_root() -> None:
    """A program that only CI installs would leave its tests skipped in every root."""
    script = (CHECKOUT / ".ci" / "run").read_text(encoding="utf-8")
    asked = set(re.findall(r"need ([a-z.-]+)", script))
    named = set(re.findall(r"missing\+=\(([a-z-]+)\)", script))
    assert len(asked) == len(named | {"fish", "zsh"}), "the script is written in another way now"
    assert named | {"fish", "zsh"} <= set(PROGRAMS + NOT_IN_EVERY_SUITE)
