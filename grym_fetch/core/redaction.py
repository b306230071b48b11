"""The secrets that this run has sent, so that a server cannot get them printed by repeating them.

Rule: text from a server is shown, logged or stored only after every one of them has been removed, in any case and
percent-encoded or not. A login is one of them if it may be a token, as in ``https://TOKEN@host``. They are kept only in
memory, and never shown. Of the secrets that each file may have of its own (in its address, or lent by a Git LFS server)
only the latest are kept: a server can repeat only what it was just sent.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

from yarl import URL

from grym_fetch.core.signatures import query_secrets

MIN_SECRET_CHARS = 4
"""Anything shorter would be found in any text, and is not a secret."""
MIN_LOGIN_CHARS = 8
"""A login of this length is a secret if it has no password that is as long."""
MIN_TOKEN_CHARS = 20
"""A login of this length is one in any case: GitHub takes tokens with the password ``x-oauth-basic``."""
HIDDEN = "…"
MAX_OF_FILES = 100
"""How many secrets of single files to keep: far more than there are requests under way at once."""


def _spelt(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern for these words, percent-encoded or not, in any case."""
    spellings = {spelt for word in words for spelt in (word, quote(word, safe=""))}
    longest_first = sorted(spellings, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)


class SentSecrets:
    """Tokens, passwords and signatures, as they were sent."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._of_files: dict[str, frozenset[str]] = {}
        """The lower-case spellings of each secret sent. Each file may add one, so no pattern is made of them."""

    def note(self, authorization: str) -> None:
        """Remember the secrets of an ``Authorization`` field that is being sent."""
        secret = authorization.partition(" ")[2]
        if secret in self._known:
            return
        words = {secret}
        if authorization.startswith("Basic "):
            login, _, password = base64.b64decode(secret).decode("utf-8", "replace").partition(":")
            words.add(password)
            if len(login) >= (MIN_LOGIN_CHARS if len(password) < MIN_LOGIN_CHARS else MIN_TOKEN_CHARS):
                words.add(login)
        self._known |= words
        if long_enough := [word for word in self._known if len(word) >= MIN_SECRET_CHARS]:
            self._pattern = _spelt(long_enough)

    def note_address(self, url: URL) -> None:
        """Remember the secrets of an address that is being requested."""
        for secret in query_secrets(url):
            self._note_of_file(secret)

    def note_lent(self, fields: Mapping[str, str]) -> None:
        """Remember the values of fields that a server wants to be sent for one file."""
        for value in fields.values():
            secret = value.partition(" ")[2] or value
            if len(secret) >= MIN_SECRET_CHARS:
                self._note_of_file(secret)

    def _note_of_file(self, secret: str) -> None:
        if secret not in self._of_files:
            plain = unquote(secret)
            spellings = (each.lower() for each in (secret, plain, quote(plain, safe="")))
            self._of_files[secret] = frozenset(spellings)
            if len(self._of_files) > MAX_OF_FILES:
                del self._of_files[next(iter(self._of_files))]

    def occur_in(self, text: str) -> bool:
        """Whether any of them is in this text."""
        return (self._pattern is not None and self._pattern.search(text) is not None) or bool(self._found_in(text))

    def hide(self, text: str) -> str:
        """Return the text without them."""
        if self._pattern is not None:
            text = self._pattern.sub(HIDDEN, text)
        found = self._found_in(text)
        return _spelt(found).sub(HIDDEN, text) if found else text

    def _found_in(self, text: str) -> set[str]:
        lowered = text.lower()
        return {each for spellings in self._of_files.values() for each in spellings if each in lowered}

    def hide_in(self, error: Exception) -> None:
        """Remove them from everything that an error says."""
        for name, value in vars(error).items():
            setattr(error, name, self._without(value))
        error.args = tuple(map(self._without, error.args))

    def _without(self, value: object) -> object:
        if isinstance(value, str):
            return self.hide(value)
        if type(value) is tuple:
            return tuple(map(self._without, value))
        return value

    def __repr__(self) -> str:
        return "SentSecrets(…)"
