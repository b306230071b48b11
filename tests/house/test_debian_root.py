"""The Debian root of `make test-debian` is a machine on which no test is skipped for want of a program."""

from __future__ import annotations

import re

from tools.debian_root import CHECKOUT, NOT_IN_EVERY_SUITE, PROGRAMS


def test_what_ci_installs_is_in_the_root() -> None:
    """A program that only CI installs would leave its tests skipped in every root."""
    script = (CHECKOUT / ".ci" / "run").read_text(encoding="utf-8")
    needed = set(re.findall(r"^ *(?:if ! )?need ([a-z-]+)", script, re.MULTILINE))
    needed |= set(re.findall(r"\|\| ! need ([a-z-]+)", script))
    assert {"nginx", "fish", "zsh"} <= needed, "the script is written in another way now"
    installed = {name.removesuffix("-light") for name in PROGRAMS + NOT_IN_EVERY_SUITE}
    assert needed <= installed
