"""What git complains about, in its own words, and what to do about it.

Rules: pure. Git runs with ``LC_ALL=C``, so its messages are known; an unknown message is passed on unchanged. No remedy
throws away anything that only this folder has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from grym_fetch.core.command_lines import command_line
from grym_fetch.core.text import safe_text

_MOST_LINES = 5
_MOST_CHARACTERS = 1000
DAMAGED = (
    "`{git} fsck --full` names what is missing, and `{git} fetch --refetch` gets it again if the remote has it. Else "
    "take it from another clone"
)
"""What to do if objects are missing; replace ``{git}`` with `git_in`."""
_REMEDIES: Mapping[str, str] = {
    r"unknown repository extension|git repo version": (
        "A newer git has made this repository, or its config is wrong: use a newer git, or correct `[extensions]` "
        "and `repositoryformatversion` in its config"
    ),
    r"maximum include depth": "A configuration file includes itself: take that include.path out of it",
    r"bad .*config|config (?:file|line|key|value)|reading config|unable to parse": "Correct that line of the file",
    r"not a git repository|gitfile format|gitdir file": (
        "There is a .git, but git does not take it for one: HEAD, objects or refs is missing or damaged. Its HEAD "
        "should read `ref: refs/heads/BRANCH`. Mend it, or put the files into a new clone"
    ),
    r"\bindex\b.*(?:smaller|corrupt|extension|map|open|version|sha1|hash|signature)|bad signature 0x"
    r"|bad index|unordered stage|unknown index|split index": (
        "The index is damaged: remove the file index in its .git folder, then `{git} reset` makes a new one from "
        "the last commit. No file changes; what was staged has to be added again"
    ),
    (
        r"bad (?:tree )?object|missing (?:blob|tree|commit|object)|not a tree|not a valid object"
        r"|[Cc]ould not (?:read|parse|get)|[Uu]nable to (?:read|find|unpack)|failed to (?:read|traverse)|corrupt"
        r"|inflate|is empty|packfile|broken ref"
    ): f"The repository is damaged: {DAMAGED}",
    r"[Pp]ermission denied": "You may not read that: ask its owner",
}
"""What to do, by words in git's message; the first match counts."""


def complaint(command: str, stderr: bytes, folder: Path, code: int | None = None) -> str:
    """Explain git's failure in ``folder``: in git's own words, with the complete remedy if one is known."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    failed = f"git {command} failed"
    if not lines:
        return failed + (f" with exit code {code}" if code is not None else ": no reason given")
    if any("safe.directory" in line for line in lines):
        remedy = next((line for line in lines if "--add safe.directory" in line), "")
        remedy = safe_text(remedy, limit=4000) or command_line(
            "git", "config", "--global", "--add", "safe.directory", str(folder)
        )
        return f"{failed}: {safe_text(lines[0])}. It belongs to another user; if you trust whoever that is: `{remedy}`"
    words = re.sub(r" (?=(?:fatal|error|warning): )", "; ", " ".join(dict.fromkeys(lines[:_MOST_LINES]))).rstrip(".")
    text = f"{failed}: {safe_text(words, limit=_MOST_CHARACTERS)}"
    for known, remedy in _REMEDIES.items():
        if re.search(known, words):
            return f"{text}. {remedy.replace('{git}', git_in(folder))}"
    return text


def git_in(folder: Path) -> str:
    """The beginning of a git command that works from any folder."""
    return command_line("git", "-C", str(folder))
