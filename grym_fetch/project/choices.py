"""A manager's settings, which may come from its caller, the environment, the project's file and the user's file.

Rules: an argument overrides the environment, which overrides files. A variable that cannot be read is refused at once;
files are read only when a setting from them is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from grym_fetch.core.configuration import Configuration
from grym_fetch.core.variables import MINIMAL, read_flag
from grym_fetch.settings import Settings


class Choices:
    """The choices of one manager. Raises `ValueError` naming an unusable value or variable, and what is allowed.

    ``settings`` is what the caller passed; ``parallel``, ``allow_stale`` and ``minimal`` are None if the caller did not
    give them. ``configuration`` reads the choices made in files, ``root`` finds the project's root, if there is one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        parallel: int | None,
        allow_stale: bool | None,
        minimal: bool | None,
        environ: Mapping[str, str],
        configuration: Callable[[], Configuration],
        root: Callable[[], Path | None],
    ) -> None:
        named = {"parallel": parallel, "allow_stale": allow_stale}
        self._given = {name: value for name, value in named.items() if value is not None}
        self._passed = settings
        self._minimal = minimal
        self._environ = environ
        self._read_configuration = configuration
        self._find_root = root
        self._merged(None)
        if minimal is None:
            read_flag(environ, MINIMAL)

    @cached_property
    def _configuration(self) -> Configuration:
        return self._read_configuration()

    @cached_property
    def settings(self) -> Settings:
        """How assets are fetched. Raises `ConfigurationError`."""
        return self._merged(self._configuration)

    def _merged(self, files: Configuration | None) -> Settings:
        configured, root = (files.fetching, self._find_root()) if files is not None else (None, None)
        chosen = self._passed.with_environment(self._environ, configured=configured, without=self._given, root=root)
        return replace(chosen, **self._given)  # type: ignore[arg-type]  # each has the type of its field

    @cached_property
    def minimal(self) -> bool:
        """Whether to use stand-ins. Raises `ConfigurationError`."""
        if self._minimal is not None:
            return self._minimal
        if self._environ.get(MINIMAL, "").strip():
            return read_flag(self._environ, MINIMAL)
        choice = self._configuration.choices.get("minimal")
        return choice is not None and choice.value is True
