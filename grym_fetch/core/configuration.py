"""Settings in files: ``[tool.grym-fetch]`` of a project's pyproject.toml, and the user's own ``config.toml``.

Rules: keys have the names of options. All problems in a file are reported together, and a file with any problem is
refused as a whole: a typing error must not allow what somebody wanted to forbid. A project's file comes with a
stranger's repository, so it may choose how fast files are fetched and where below the project they go, and it may
forbid things; it may not allow anything that is forbidden without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from grym_fetch.core.errors import ConfigurationError, Problem
from grym_fetch.core.mirror_rules import are_rules, read_mirrors
from grym_fetch.core.nearest import as_key, nearest_names
from grym_fetch.core.paths import check_local_path
from grym_fetch.core.text import safe_text
from grym_fetch.core.validation import Rule, instance_of, number, one_of, whole_number
from grym_fetch.core.variables import MINIMAL, MIRRORS, VARIABLES, parse_rate

TABLE = "grym-fetch"
"""Our table: ``[tool.grym-fetch]``."""
MAX_CONFIGURATION_BYTES = 1024 * 1024
MOST_CONNECTIONS_OF_A_PROJECT = 64
"""More are a burden for servers, whose owners blame the user and not the project."""


def is_folder(value: object) -> bool:
    """Whether this can be the path of a folder."""
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


MIRROR_RULES = Rule("a tuple of MirrorRule", are_rules)
FETCHING: Mapping[str, Rule] = {
    "parallel": whole_number(1),
    "max_per_host": whole_number(1).or_none("no limit"),
    "mirrors": one_of("fallback", "together"),
    "mirror_rules": MIRROR_RULES,
    "limit_rate": number(above=0).or_none("no limit"),
    "retries": whole_number(0),
    "stall_timeout": number(above=0),
    "connect_timeout": number(above=0),
    "patience": number(least=0),
    "lock_timeout": number(least=0),
    "offline": instance_of(bool),
    "allow_unpinned": instance_of(bool),
    "allow_stale": instance_of(bool),
    "allow_private_addresses": instance_of(bool),
    "pipelining": instance_of(bool),
    "store": Rule("True, False or the path of a folder", lambda value: isinstance(value, bool) or is_folder(value)),
    "link_mode": one_of("auto", "reflink", "hardlink", "copy"),
    "adopt": instance_of(bool),
}
"""The allowed values of the settings for fetching assets."""

Origin = Literal["project", "user"]


@dataclass(frozen=True, slots=True)
class SettingKey:
    """A key in a file: its setting, its environment variable, and what a project may do with it."""

    name: str
    setting: str
    variable: str
    from_project: Literal["any", "true", "never"] = "any"

    @property
    def is_negated(self) -> bool:
        """Whether the setting says the opposite: ``no-pipelining`` and ``pipelining``."""
        return self.name.startswith("no-")


_FROM_PROJECT: Mapping[str, Literal["true", "never"]] = {
    "offline": "true",
    "no-private-addresses": "true",
    "allow-stale": "never",
    "allow-unpinned": "never",
    "external-assets-dir": "never",
    "store": "never",
    "adopt": "never",
}


def _key(variable: str, setting: str) -> SettingKey:
    name = variable.removeprefix("GRYM_FETCH_").lower().replace("_", "-")
    return SettingKey(name, setting, variable, _FROM_PROJECT.get(name, "any"))


ASSETS_DIR = _key("GRYM_FETCH_ASSETS_DIR", "assets_dir")
EXTERNAL_DIR = _key("GRYM_FETCH_EXTERNAL_ASSETS_DIR", "external_assets_dir")
RULES = SettingKey("mirrors (rules)", "mirror_rules", MIRRORS)
"""What ``mirrors`` says if it is a table."""
KEYS = (
    ASSETS_DIR,
    EXTERNAL_DIR,
    _key(MINIMAL, "minimal"),
    *(RULES if each.setting == RULES.setting else _key(each.name, each.setting) for each in VARIABLES),
)
_BY_NAME = {key.name: key for key in KEYS if key is not RULES}


@dataclass(frozen=True, slots=True)
class Choice:
    """A value, the path of the file that has it, and whose file that is."""

    value: object
    source: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Configuration:
    """The choices made in files, by `SettingKey.setting`. ``sources`` are the files that were read, strongest first."""

    choices: Mapping[str, Choice] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def over(self, weaker: Configuration) -> Configuration:
        """These choices, completed by those of ``weaker``. Mirror rules of both hold: no ``only`` is overridden."""
        choices = {**weaker.choices, **self.choices}
        ours, theirs = self.choices.get(RULES.setting), weaker.choices.get(RULES.setting)
        if ours is not None and theirs is not None:
            assert isinstance(ours.value, tuple)
            assert isinstance(theirs.value, tuple)
            choices[RULES.setting] = Choice(ours.value + theirs.value, f"{ours.source}, {theirs.source}", ours.origin)
        return Configuration(choices, self.sources + weaker.sources)

    @property
    def fetching(self) -> dict[str, object]:
        """The fields of `Settings` that are chosen."""
        return {name: choice.value for name, choice in self.choices.items() if name in FETCHING}


def parse_configuration(data: bytes, source: str, origin: Origin) -> Configuration:
    """Read a settings file; only our table of a project's pyproject.toml. Raises `ConfigurationError`."""
    shown = safe_text(source, limit=4000)
    if len(data) > MAX_CONFIGURATION_BYTES:
        raise ConfigurationError(
            source, [Problem(f"is larger than {MAX_CONFIGURATION_BYTES} bytes", "", "no settings")]
        )
    if origin == "project" and TABLE.encode() not in data:
        return Configuration()
    import tomllib  # not needed if no file has our table

    try:
        table: object = tomllib.loads(data.decode())
    except RecursionError:
        raise ConfigurationError(shown, [Problem("not TOML", "", "it is nested too deeply")]) from None
    except ValueError as error:  # this includes a wrong encoding
        raise ConfigurationError(shown, [Problem("not TOML", "", safe_text(str(error)))]) from None
    if origin == "project":
        for name in ("tool", TABLE):
            if not isinstance(table, dict) or name not in table:
                return Configuration()
            table = table[name]
    if not isinstance(table, dict):
        raise ConfigurationError(shown, [Problem(f"tool.{TABLE}", "", "must be a table")])
    choices: dict[str, Choice] = {}
    problems: list[Problem] = []
    for name, value in table.items():
        try:
            key = _known(name)
            if key.setting == "mirrors" and isinstance(value, dict):
                words = read_mirrors(value)
                for setting, chosen in (("mirrors", words.mode), (RULES.setting, words.rules)):
                    if chosen is not None:
                        choices[setting] = Choice(chosen, source, origin)
                continue
            choices[key.setting] = Choice(_read(key, value, origin), source, origin)
        except ValueError as error:
            problems.append(Problem(safe_text(name, limit=80), "", str(error)))
    if problems:
        raise ConfigurationError(shown, problems)
    return Configuration(choices, (source,))


def _known(name: str) -> SettingKey:
    if (key := _BY_NAME.get(name)) is not None:
        return key
    near = nearest_names(name, _BY_NAME, most=1, forms=as_key)
    hint = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(_BY_NAME)}"
    raise ValueError(f"is not a setting; {hint}")


def _read(key: SettingKey, value: object, origin: Origin) -> object:
    """The setting's value. Raises `ValueError`, whose text follows the key's name."""
    if origin == "project" and key.from_project == "never":
        raise ValueError(
            f"cannot be set by a project, whose file may be a stranger's; use --{key.name}, {key.variable} or your own "
            "config.toml"
        )
    if key in (ASSETS_DIR, EXTERNAL_DIR):
        return _read_folder(value, origin)
    rule = FETCHING.get(key.setting, instance_of(bool))
    if key.setting == "limit_rate" and isinstance(value, str):
        value = parse_rate(value)
    if (problem := rule.problem(value)) is not None or value is None:
        raise ValueError(
            (problem or "").replace("True or False", "true or false").replace("True, False", "true, false")
        )
    if origin == "project":
        if key.from_project == "true" and value is not True:
            raise ValueError(f"can only be true in a project's file, which may be a stranger's; set {key.variable}=0")
        if key.setting in ("parallel", "max_per_host") and int(str(value)) > MOST_CONNECTIONS_OF_A_PROJECT:
            raise ValueError(f"can be at most {MOST_CONNECTIONS_OF_A_PROJECT} in a project's file; use --{key.name}")
    return not value if key.is_negated else value


def _read_folder(value: object, origin: Origin) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"must be the path of a folder, not {safe_text(repr(value), limit=80)}")
    if origin == "user":
        return value
    try:
        return check_local_path(value.rstrip("/"))
    except ValueError as error:
        reason = (
            str(error)
            .replace("the assets folder, such as models/base.bin", "the file")
            .replace("assets folder", "file")
        )
        raise ValueError(f"{reason}; a project's file names a folder below its own") from None
