"""Kinds of JSON values. Each reads a value, says in words what is allowed, and describes itself as a JSON Schema.

Rules: kinds are strict, so ``"12"``, ``1.0`` and ``true`` are not whole numbers. Reading raises `ValueError`; a list or
an object raises `Invalid`, with every problem and its place. A message never repeats a string from the file, which may
hold a secret. The happy path builds no messages or places: 60,000 assets are read in less than a second.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice, repeat
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from grym_fetch.core.columns import Column, are_all, build_all
from grym_fetch.core.nearest import as_key, nearest_names
from grym_fetch.core.text import safe_text


class Value(Protocol):
    """What an object in the file becomes: a dataclass that also keeps the unknown keys."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init__(self, **fields: Any) -> None: ...

    @property
    def extra(self) -> Mapping[str, object]: ...


T = TypeVar("T")
V = TypeVar("V", bound=Value)
Location = tuple[int | str, ...]
"""The keys and indices that lead to a value."""

_MANY = 16
"""A longer list is worth being read by columns."""
_MAX_CANDIDATES = 100
_MAX_KEY_CHARACTERS = 40


class Invalid(ValueError):
    """A list or an object with problems: the place of each inside it, and what is wrong there."""

    def __init__(self, problems: list[tuple[Location, str]]) -> None:
        super().__init__(problems)
        self.problems = problems


class Kind(Protocol[T]):
    """A kind of value. ``rule`` says what is allowed; a value that was read can be written, and reads back the same."""

    @property
    def rule(self) -> str: ...

    @property
    def json_schema(self) -> Mapping[str, object]: ...

    def read(self, value: object, /) -> T: ...

    def read_all(self, values: Column, /) -> Sequence[T] | None:
        """Read many values at once; None if any may be wrong, or be read otherwise by `read`."""

    def write(self, value: T, /) -> object: ...


@dataclass(frozen=True, slots=True)
class _Kind(Generic[T]):
    rule: str
    json_schema: Mapping[str, object]
    read: Callable[[object], T]
    read_all: Callable[[Column], Sequence[T] | None]
    write: Callable[[T], object] = lambda value: value


def _each(read: Callable[[object], T]) -> Callable[[Column], Sequence[T] | None]:
    """Return what reads many values one by one."""

    def read_all(values: Column) -> Sequence[T] | None:
        try:
            return list(map(read, values))
        except ValueError:
            return None

    return read_all


def text(
    rule: str,
    check: Callable[[str], T],
    write: Callable[[T], object] = lambda value: value,
    *,
    check_all: Callable[[Column], Sequence[T] | None] | None = None,
    **json_schema: object,
) -> Kind[T]:
    """A string that ``check`` turns into a value, or refuses with a `ValueError`.

    ``check_all`` does the same for many values, if each of them is a common one.
    """

    def read(value: object) -> T:
        if type(value) is not str:
            raise ValueError(_not_allowed(value, rule))
        return check(value)

    def read_all(values: Column) -> Sequence[T] | None:
        found = None if check_all is None else check_all(values)
        return _each(read)(values) if found is None else found

    return _Kind(rule, {"type": "string", **json_schema}, read, read_all, write)


def whole_number(rule: str, maximum: int, *, minimum: int = 0) -> Kind[int]:
    """A whole number from ``minimum`` to ``maximum``."""

    def read(value: object) -> int:
        if type(value) is not int or not minimum <= value <= maximum:
            raise ValueError(_not_allowed(value, rule))
        return value

    def read_all(values: Column) -> Sequence[int] | None:
        is_right = (
            are_all(values, int) and min(values, default=minimum) >= minimum and max(values, default=minimum) <= maximum
        )
        return values if is_right else None

    return _Kind(rule, {"type": "integer", "minimum": minimum, "maximum": maximum}, read, read_all)


def text_or_number(rule: str) -> Kind[str]:
    """A string, or a number, which is kept as text."""

    def read(value: object) -> str:
        if type(value) is str:
            return value
        if type(value) is int or type(value) is float:
            return str(value)
        raise ValueError(_not_allowed(value, rule))

    return _Kind(rule, {"type": ["string", "number"]}, read, _each(read))


def flag(rule: str) -> Kind[bool]:
    """A truth value."""

    def read(value: object) -> bool:
        if type(value) is not bool:
            raise ValueError(_not_allowed(value, rule))
        return value

    def read_all(values: Column) -> Sequence[bool] | None:
        return values if are_all(values, bool) else None

    return _Kind(rule, {"type": "boolean"}, read, read_all)


def any_object(rule: str) -> Kind[Mapping[str, object]]:
    """An object that is kept as it is."""

    def read(value: object) -> Mapping[str, object]:
        if type(value) is not dict:
            raise ValueError(_not_allowed(value, rule))
        return value

    return _Kind(rule, {"type": "object", "additionalProperties": True}, read, _each(read), dict)


def list_of(item: Kind[T], rule: str, *, max_items: int | None = None, distinct: bool = False) -> Kind[tuple[T, ...]]:
    """A list of one kind of item. ``distinct``: repeated items are left out."""

    def read(value: object) -> tuple[T, ...]:
        if type(value) is not list:
            raise ValueError(_not_allowed(value, rule))
        if max_items is not None and len(value) > max_items:
            raise ValueError(f"has {len(value)} items; allowed: {rule}")
        if len(value) > _MANY and (found := item.read_all(value)) is not None:
            return tuple(dict.fromkeys(found) if distinct else found)
        items: list[T] = []
        problems: list[tuple[Location, str]] = []
        for index, each in enumerate(value):
            try:
                items.append(item.read(each))
            except ValueError as error:
                problems += _problems_at(index, error)
        if problems:
            raise Invalid(problems)
        return tuple(dict.fromkeys(items) if distinct else items)

    def read_all(values: Column) -> Sequence[tuple[T, ...]] | None:
        if not are_all(values, list) or (max_items is not None and max(map(len, values), default=0) > max_items):
            return None
        found = item.read_all(list(chain.from_iterable(values)))
        if found is None:
            return None
        rest = iter(found)
        # Many have the same: one tuple serves all of them.
        known: dict[tuple[T, ...], tuple[T, ...]] = {}
        lists: list[tuple[T, ...]] = []
        for value in values:
            items = tuple(islice(rest, len(value)))
            if (shared := known.get(items)) is None:
                shared = known[items] = tuple(dict.fromkeys(items)) if distinct else items
            lists.append(shared)
        return lists

    def write(items: tuple[T, ...]) -> object:
        return [item.write(each) for each in items]

    limit = {} if max_items is None else {"maxItems": max_items}
    return _Kind(rule, {"type": "array", "items": item.json_schema, **limit}, read, read_all, write)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an object. In Python its value is a field of the same name in snake case.

    ``null`` is the same as leaving the key out, unless it is ``needed``. One that is ``explicit`` is written even if it
    has its default, because people look for it. ``same_as`` names the field whose value is the default.
    """

    name: str
    kind: Kind[Any]
    description: str
    needed: bool = False
    explicit: bool = False
    same_as: str | None = None

    @property
    def field(self) -> str:
        """The name of the field in Python."""
        return _snake_case(self.name)


@cache  # asked for each key of each entry that is written
def _snake_case(name: str) -> str:
    return re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name)


class Object(Generic[V]):
    """An object that becomes a ``result``, whose ``extra`` gets the unknown keys.

    ``name`` is what the JSON Schema calls it.
    """

    def __init__(
        self, result: type[V], keys: tuple[Key, ...], *, rule: str, name: str, title: str, description: str
    ) -> None:
        self.rule = rule
        self.keys = keys
        self.name = name
        self.result = result
        self._title = title
        self._description = description
        self._needed = frozenset(key.name for key in keys if key.needed)
        # What `read` looks up for each value, in as few steps as possible.
        self._readers = {key.name: (key.field, key.kind.read, key.needed) for key in keys}
        fields = [each for each in dataclasses.fields(result) if each.init]
        self._makers: dict[str, Callable[[], Any]] = {
            each.name: each.default_factory for each in fields if each.default_factory is not dataclasses.MISSING
        }
        self._defaults = {
            each.name: self._makers[each.name]() if each.name in self._makers else each.default for each in fields
        }

    def read(self, value: object) -> V:
        """Return the value.

        Raises:
            ValueError: it is not an object; or `Invalid`: something in it is not allowed.
        """
        if type(value) is not dict:
            raise ValueError(_not_allowed(value, self.rule))
        fields: dict[str, Any] = {}
        extra: dict[str, object] = {}
        problems: list[tuple[Location, str]] = []
        readers = self._readers
        for name, item in value.items():
            reader = readers.get(name)
            if reader is None:
                extra[name] = item
                continue
            field, read, needed = reader
            if item is None and not needed:
                continue
            try:
                fields[field] = read(item)
            except ValueError as error:
                problems += _problems_at(name, error)
        if not self._needed <= value.keys():
            problems += self._missing(value)
        if problems:
            raise Invalid(problems)
        return self.result(**fields, extra=extra)

    def read_all(self, values: Column) -> list[V] | None:
        """Read many values at once; None if any may be wrong, or is a mere default in a field that needs a value."""
        if not are_all(values, dict):
            return None
        shapes = set(map(tuple, values))
        names = set(chain.from_iterable(shapes))
        columns: dict[str, Iterable[Any]] = {"extra": self._extras(values, names - self._readers.keys())}
        for key in self.keys:
            field = key.field
            if key.needed and any(key.name not in shape for shape in shapes):
                return None
            column = [value.get(key.name) for value in values] if key.name in names else []
            if column.count(None) == len(column) and not key.needed:
                columns[field] = self._default_column(field, len(values))
            elif (read := self._read_column(key, field, column)) is not None:
                columns[field] = read
            else:
                return None
        for key in self.keys:
            if key.same_as is not None:
                named = zip(columns[key.field], columns[key.same_as], strict=False)
                columns[key.field] = [own or other for own, other in named]
        for field in self._defaults.keys() - columns.keys():
            columns[field] = self._default_column(field, len(values))
        return build_all(self.result, len(values), columns)

    @staticmethod
    def _extras(values: Column, unknown: set[str]) -> Iterable[dict[str, object]]:
        if not unknown:
            return [{} for _ in values]
        return [{name: item for name, item in value.items() if name in unknown} for value in values]

    def _default_column(self, field: str, count: int) -> Iterable[Any]:
        make = self._makers.get(field)
        return repeat(self._defaults[field]) if make is None else [make() for _ in range(count)]

    def _read_column(self, key: Key, field: str, column: Column) -> Iterable[Any] | None:
        """Read what values have at one key; None there is the default."""
        if key.needed or None not in column:
            return key.kind.read_all(column)
        read = key.kind.read_all([item for item in column if item is not None])
        if read is None:
            return None
        rest, defaults = iter(read), iter(self._default_column(field, len(column)))
        return [next(defaults) if item is None else next(rest) for item in column]

    def _missing(self, value: Mapping[str, object]) -> Iterator[tuple[Location, str]]:
        for key in self.keys:
            if key.needed and key.name not in value:
                meant = nearest_key(key.name, value)
                hint = f" (is '{safe_text(meant)}' meant?)" if meant else ""
                yield (key.name,), f"is missing; needed: {key.kind.rule}{hint}"

    def write(self, value: V) -> dict[str, object]:
        """Return the object, its keys in order and unknown ones last. Most keys with a default value are left out."""
        written: dict[str, object] = {}
        for key in self.keys:
            item = getattr(value, key.field)
            default = self._defaults[key.field] if key.same_as is None else getattr(value, key.same_as)
            if key.needed or key.explicit or item != default:
                written[key.name] = None if item is None else key.kind.write(item)
        return written | dict(value.extra)

    @property
    def json_schema(self) -> Mapping[str, object]:
        """A reference to `definition`."""
        return {"$ref": f"#/$defs/{self.name}"}

    @property
    def definition(self) -> dict[str, object]:
        """The JSON Schema of the object itself."""
        return {
            "title": self._title,
            "description": self._description,
            "type": "object",
            "properties": {key.name: self._property(key) for key in self.keys},
            "required": [key.name for key in self.keys if key.needed],
            "additionalProperties": True,
        }

    def _property(self, key: Key) -> dict[str, object]:
        if key.needed:
            return {"description": key.description, **key.kind.json_schema}
        default = self._defaults[key.field]
        return {
            "description": key.description,
            "anyOf": [key.kind.json_schema, {"type": "null"}],
            "default": default if isinstance(default, bool) else None,
        }


def problems_of(error: ValueError) -> list[tuple[Location, str]]:
    """Return the problems found on reading a value: for each, its place inside the value and a message."""
    return error.problems if isinstance(error, Invalid) else [((), str(error))]


def _problems_at(part: int | str, error: ValueError) -> list[tuple[Location, str]]:
    return [((part, *location), message) for location, message in problems_of(error)]


def _not_allowed(value: object, rule: str) -> str:
    return f"{_predicate(value)}; allowed: {rule}"


def _predicate(value: object) -> str:
    """Say what a JSON value is, without repeating a string."""
    match value:
        case None:
            return "is null"
        case bool():
            return "is true" if value else "is false"
        case int() | float():
            return f"is {value}"
        case str():
            return "is a string"
        case list():
            return "is a list"
        case dict():
            return "is an object"
        case _:
            return "is not a value"


def nearest_key(key: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that ``key`` was probably meant to be, whatever its case and separators."""
    # A typo is not longer than this, and a file written to slow us down may have millions of keys.
    plain = [each for each in islice(candidates, _MAX_CANDIDATES) if len(each) <= _MAX_KEY_CHARACTERS]
    return next(iter(nearest_names(key[:_MAX_KEY_CHARACTERS], plain, most=1, likeness=0.75, forms=as_key)), None)
