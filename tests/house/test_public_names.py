"""What is public can be relied on: each type that a user meets has a public home and is documented."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import grym_fetch
from grym_fetch import errors

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "grym_fetch"
PUBLIC = ("errors", "events", "settings", "manifest", "reports", "transport", "blocking", "testing", "sources")
"""The public modules beside the package itself. Another one is public once it is listed here and documented."""
MODULES = ("grym_fetch", *(f"grym_fetch.{name}" for name in PUBLIC))
DOCUMENTS = "\n".join(path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


@cache
def public_names() -> frozenset[str]:
    """Every name that can be imported from a public module."""
    return frozenset(name for module in MODULES for name in import_module(module).__all__)


@cache
def classes() -> dict[str, type]:
    """Every public class, by the module and name from which a user imports it."""
    found = {f"{m}.{name}": getattr(import_module(m), name) for m in MODULES for name in import_module(m).__all__}
    return {name: value for name, value in found.items() if isinstance(value, type)}


@cache
def our_types() -> frozenset[str]:
    """The classes and type aliases that the package defines, including those that only a type checker sees."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            match node:
                case ast.ClassDef(name=name):
                    found.add(name)
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name) and not ast.unparse(value).startswith("TypeVar("):
                        found.add(name)
    return frozenset(found)


def named(annotation: object) -> set[str]:
    """The types of ours in an annotation, as written."""
    return set(re.findall(r"\b[A-Z]\w*", str(annotation))) & our_types()


HANDED_OUT = {"Subscription", "EventStream", "AssetReader", "AssetFile"}
"""Classes that a user receives but does not create."""


def members(kind: type) -> Iterator[tuple[str, object]]:
    """The public members of a class and of its bases in the package, and its constructor if users call it."""
    for base in kind.__mro__:
        if base.__module__.startswith("grym_fetch"):
            for name, member in vars(base).items():
                if not name.startswith("_") or (name == "__init__" and kind.__name__ not in HANDED_OUT):
                    yield name, member


def types_met(kind: type) -> set[str]:
    """The types of ours in the signatures and attributes of a class."""
    met: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.startswith("grym_fetch"):
            annotations = inspect.get_annotations(base)
            met |= named([text for name, text in annotations.items() if not name.startswith("_")])
    for _, member in members(kind):
        function = member.fget if isinstance(member, property) else inspect.unwrap(getattr(member, "__func__", member))  # type: ignore[arg-type]  # anything but a function is returned as it is
        met |= named(list(getattr(function, "__annotations__", {}).values()))
    return met


def raised(text: str | None) -> set[str]:
    """The errors that a docstring promises."""
    sentences = re.findall(r"\bRaises? (.*?)(?:\.(?:\s|$)|$)", text or "", re.DOTALL)
    listed = re.findall(r"^Raises:\n((?: +.*\n?)+)", text or "", re.MULTILINE)
    return {
        *(name for sentence in sentences for name in re.findall(r"`(?:\w+\.)*([A-Z]\w*)`", sentence)),
        *(name for each in listed for name in re.findall(r"^ +(\w+):", each, re.MULTILINE)),
    }


def test_types_of_public_signatures_are_public() -> None:
    """Each type in a public signature or attribute can be imported from a public module."""
    private = {name: types_met(kind) - public_names() for name, kind in classes().items()}
    assert {name: types for name, types in private.items() if types} == {}


def test_errors_that_are_promised_are_public() -> None:
    """Each error that a public class promises to raise can be imported from `grym_fetch.errors`, or is Python's."""
    known = set(errors.__all__) | set(vars(builtins))
    for name, kind in classes().items():
        texts = [kind.__doc__, *(inspect.getdoc(member) for _, member in members(kind))]
        assert {error for text in texts for error in raised(text)} - known == set(), name


def test_functions_are_as_public() -> None:
    """The same holds for the public functions."""
    for module in MODULES:
        for name in import_module(module).__all__:
            if inspect.isfunction(function := inspect.getattr_static(import_module(module), name, None)):
                assert named(list(function.__annotations__.values())) <= public_names(), name
                assert raised(function.__doc__) <= set(errors.__all__) | set(vars(builtins)), name


def test_every_public_name_is_documented() -> None:
    """Each public name is in the documentation, and so is each public module."""
    assert [name for name in sorted(public_names()) if not re.search(rf"\b{name}\b", DOCUMENTS)] == []
    assert [name for name in MODULES if f"`{name}`" not in (ROOT / "docs/python-api.md").read_text("utf-8")] == []


def test_one_page_says_what_is_public() -> None:
    """The package's docstring names the public modules, and there are about fifteen names in the package itself."""
    assert grym_fetch.__doc__ is not None
    said = grym_fetch.__doc__.partition("Public are")[2].partition("Everything else")[0]
    assert set(re.findall(r"`(?:grym_fetch\.)?(\w+)`", said)) - {"__all__"} == set(PUBLIC)
    assert len(grym_fetch.__all__) <= 19


def test_the_names_of_the_package_itself_are_listed() -> None:
    """The page says exactly which names can be imported from the package itself."""
    page = (ROOT / "docs/python-api.md").read_text(encoding="utf-8")
    [row] = re.findall(r"^\| `grym_fetch` \| (.*) \|$", page, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", row)) == sorted(grym_fetch.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_public_names_exist(module: str) -> None:
    """Each name in a module's list can be imported from it, and completion shows it."""
    found = import_module(module)
    for name in found.__all__:
        assert getattr(found, name) is not None
    assert set(found.__all__) <= set(dir(found))


def test_errors_can_still_be_imported_from_the_package() -> None:
    """An error's old place works, and says where the new one is; a name that never existed there does not."""
    with pytest.warns(DeprecationWarning, match=r"import DiskFull from grym_fetch\.errors"):
        assert vars(errors)["DiskFull"] is getattr(grym_fetch, "DiskFull")  # noqa: B009 - hidden from type checkers
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        getattr(grym_fetch, "Nonsense")  # noqa: B009 - as above


def test_a_public_name_warns_of_nothing() -> None:
    """Importing only what is public causes no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in grym_fetch.__all__:
            getattr(grym_fetch, name)


def test_a_type_checker_knows_what_is_public() -> None:
    """Names resolved on demand are hidden from type checkers: to them, a moved name is an error."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    assert "__getattr__" not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    hidden = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "not TYPE_CHECKING"]
    assert [node.name for each in hidden for node in each.body if isinstance(node, ast.FunctionDef)] == ["__getattr__"]
