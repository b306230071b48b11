"""The secrets that this run has sent, so that no server can have them printed by repeating them.

Rule: what a server says is shown, logged or stored only after every one of them was taken out, in whatever case and
percent-encoded or not. Kept in memory alone, and never shown.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

from grym_fetch.core.errors import GrymFetchError

MIN_SECRET_CHARS = 4
"""Shorter ones would be found in any text, and are no secrets."""
HIDDEN = "…"


class SentSecrets:
    """Tokens and passwords, as they were sent."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def note(self, authorization: str) -> None:
        """This ``Authorization`` field goes out."""
        secret = authorization.partition(" ")[2]
        if secret in self._known:
            return
        words = {secret}
        if authorization.startswith("Basic "):
            words.add(base64.b64decode(secret).decode("utf-8", "replace").partition(":")[2])
        self._known |= words
        spellings = {
            spelt for word in self._known for spelt in (word, quote(word, safe="")) if len(word) >= MIN_SECRET_CHARS
        }
        longest_first = sorted(spellings, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE) if longest_first else None

    def occur_in(self, text: str) -> bool:
        """Whether any of them is in this text."""
        return self._pattern is not None and self._pattern.search(text) is not None

    def hide(self, text: str) -> str:
        """Return the text without them."""
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)

    def hide_in(self, error: GrymFetchError) -> None:
        """Take them out of everything that an error says."""
        if self._pattern is None:
            return
        for name, value in vars(error).items():
            if isinstance(value, str):
                setattr(error, name, self.hide(value))
        error.args = tuple(self.hide(each) if isinstance(each, str) else each for each in error.args)

    def __repr__(self) -> str:
        return "SentSecrets(…)"
