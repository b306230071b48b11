"""Writes `grym_fetch/blocking.py`, the API without ``await``, from `grym_fetch/manager.py`.

::

    python -m tools.generate_blocking            # write it
    python -m tools.generate_blocking --check    # fail if it is not what would be written

Every public method, property and attribute of `AssetManager` gets its twin, with the same signature, types and
documentation but for `WORDS`. What a method is decides how it is called: one that is awaited runs in the
manager's loop, any other is called there, and what `RETURNED` names is made usable from outside that loop. A member
that is none of these stops this program: say here how it is called, or write its twin by hand in `Blocking` and name it
in `BY_HAND`. The rest, which is the same for every manager, is `grym_fetch.runtime.loop_thread`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "grym_fetch" / "manager.py"
TARGET = ROOT / "grym_fetch" / "blocking.py"
CLASS = "AssetManager"
WIDTH = 120 - 8

BY_HAND = {"aclose"}
"""Members that `Blocking` has a twin for, under this name or another one."""

RETURNED = {
    "Subscription": ("_stream", "EventStream"),
    "AssetReader": ("_open_file", "AssetFile"),
    "Callable[[], None]": ("_register", "Callable[[], None]"),
    "AbstractContextManager[None]": ("_bracket", "AbstractContextManager[None]"),
}
"""By the annotation of what a method returns: the method of `Blocking` that calls it, and what it returns here."""

WORDS = [
    (r"(?m)^Needs a running\s+loop\.\s", ""),
    (r"\s+Needs a running\s+loop\.", ""),
    (r" Does not wait; in the manager's loop only\.", " From any thread."),
    (r"\ban async context manager and async iterator\b", "a context manager and iterator"),
    (r"\ban async context manager\b", "a context manager"),
    (r"\bruns in the event loop\b", "runs in the manager's own loop"),
    (r"\baclose\b", "close"),
    (r"\basync (with|for)\b", r"\1"),
]
"""What is said in other words where nobody awaits: patterns, and what stands in their place."""

HEAD = '''\
"""`AssetManager` without ``await``: for scripts, notebooks, and code that runs inside someone else's event loop.

::

    from grym_fetch.blocking import AssetManager

    with AssetManager(config="assets.json") as manager:
        path = manager.get_asset_path("audioldm-s-full")

Rules: the asynchronous manager does the work, in its own loop and daemon thread. An async callback, and what a method
takes as ``on_…``, is called in that loop, so it must not make a call that waits.

Generated from `grym_fetch.manager` by `tools/generate_blocking.py`; to change it, change these and run `make blocking`.
"""

# ruff: noqa: A002 - the parameters are those of the asynchronous manager

from __future__ import annotations

'''

CLASS_DOC = """\
Downloads and verifies the assets of a manifest, without ``await``.

Use it as a context manager, or call `close` at the end. All arguments are those of `grym_fetch.AssetManager`.
Usable from any thread, even one with a running event loop (which a call blocks while it lasts).
Not usable in a process forked from the one where it was used: make a new one there.
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Unknown(Exception):
    """A member that this program does not know how to call."""


# -- reading -----------------------------------------------------------------------------------------------------------


def class_of(tree: ast.Module) -> ast.ClassDef:
    """The class that gets a twin."""
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == CLASS)


def members_of(owner: ast.ClassDef) -> Iterator[tuple[ast.stmt, str | None]]:
    """Its public members and its constructor, each with its documentation."""
    for at, node in enumerate(owner.body):
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)) if not name.startswith("_"):
                below = owner.body[at + 1 : at + 2]
                match below:
                    case [ast.Expr(value=ast.Constant(value=str(text)))]:
                        yield node, re.sub(r"\n\s+", "\n", text)
                    case _:
                        yield node, None
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if is_constructor(node) or not (name.startswith("_") or name in BY_HAND):
                    yield node, ast.get_docstring(node)


def is_constructor(node: ast.stmt) -> bool:
    """Whether a member is ``__init__``."""
    return isinstance(node, ast.FunctionDef) and node.name == "__init__"


def sources_of(tree: ast.Module) -> dict[str, str]:
    """The import that makes each name of the module known, also of those that are only imported for their types."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                for alias in names:
                    found[alias.asname or alias.name] = f"from {module} import {ast.unparse(alias)}"
            case ast.Import(names=names):
                for alias in names:
                    found[(alias.asname or alias.name).partition(".")[0]] = f"import {ast.unparse(alias)}"
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = f"from grym_fetch.manager import {name}"
            case ast.ClassDef(name=name) if name != CLASS:
                found[name] = f"from grym_fetch.manager import {name}"
    return found


def names_in(node: ast.AST) -> set[str]:
    """The names that a signature or an annotation uses."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


# -- writing -----------------------------------------------------------------------------------------------------------


def indented(text: str, depth: int) -> str:
    """Lines of code or documentation, further to the right."""
    return "".join(f"{' ' * depth if line.strip() else ''}{line}\n" for line in text.rstrip().split("\n"))


def filled(paragraph: str) -> str:
    """A paragraph of a method's docstring, wrapped anew where its new words have made it too wide."""
    if all(len(line) <= WIDTH for line in paragraph.split("\n")):
        return paragraph
    return textwrap.fill(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False)


def quoted(text: str, depth: int) -> str:
    """A docstring in blocking words."""
    for pattern, instead in WORDS:
        text = re.sub(pattern, instead, text)
    paragraphs = text.strip().split("\n\n")
    text = "\n\n".join(filled(each) for each in paragraphs)
    text = text.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    end = '\n"""' if "\n" in text else '"""'
    return indented(f'"""{text}{end}', depth)


def passed_on(arguments: ast.arguments) -> list[str]:
    """The arguments of a call that passes a signature's own on; without ``self``."""
    given = [argument.arg for argument in [*arguments.posonlyargs, *arguments.args][1:]]
    if arguments.vararg is not None:
        given.append(f"*{arguments.vararg.arg}")
    given += [f"{argument.arg}={argument.arg}" for argument in arguments.kwonlyargs]
    if arguments.kwarg is not None:
        given.append(f"**{arguments.kwarg.arg}")
    return given


def constructor(node: ast.FunctionDef) -> str:
    """The constructor's twin. The environment is looked at once, however often a manager is made."""
    given = passed_on(node.args)
    if "environ=environ" in given:
        given[given.index("environ=environ")] = "environ=dict(os.environ if environ is None else environ)"
    call = ", ".join([f"asynchronous.{CLASS}", *given])
    body = f"super().__init__(functools.partial({call}))"
    return f"def __init__({ast.unparse(node.args)}) -> None:\n" + indented(body, 4)


def attribute(name: str, annotation: ast.expr, text: str | None) -> str:
    """What is read from the manager as it is."""
    if text is None:
        raise Unknown(f"{CLASS}.{name} has no documentation")
    head = f"@property\ndef {name}(self) -> {ast.unparse(annotation)}:\n"
    return head + quoted(text, 4) + indented(f"return self._manager.{name}", 4)


def method(node: Function, text: str | None) -> str:
    """A method's twin."""
    if node.decorator_list or node.returns is None or text is None:
        raise Unknown(f"{CLASS}.{node.name} is decorated, or lacks documentation or the type of what it returns")
    returned = ast.unparse(node.returns)
    how, here = RETURNED.get(returned, ("_run" if isinstance(node, ast.AsyncFunctionDef) else "_call", returned))
    if returned in RETURNED and isinstance(node, ast.AsyncFunctionDef):
        raise Unknown(f"{CLASS}.{node.name} is awaited and returns {returned}")
    call = ", ".join([f"asynchronous.{CLASS}.{node.name}", *passed_on(node.args)])
    body = f"self.{how}({call})" if returned == "None" else f"return self.{how}({call})"
    return f"def {node.name}({ast.unparse(node.args)}) -> {here}:\n" + quoted(text, 4) + indented(body, 4)


def twin_of(node: ast.stmt, text: str | None) -> str:
    """The twin of a member."""
    match node:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
            return attribute(name, annotation, text)
        case ast.FunctionDef(name="__init__"):
            return constructor(node)
        case ast.FunctionDef(decorator_list=[ast.Name(id="property")], returns=ast.expr() as annotation):
            return attribute(node.name, annotation, text)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return method(node, text)
        case _:
            raise Unknown(ast.unparse(node))


def generate(source: str) -> str:
    """Return the text of the blocking module for the text of the asynchronous one. Raises `Unknown`."""
    tree = ast.parse(source)
    # The constructor comes first, and then the attributes it sets.
    members = sorted(members_of(class_of(tree)), key=lambda member: not is_constructor(member[0]))
    names: set[str] = set()
    for node, _ in members:
        if isinstance(node, ast.AnnAssign):
            names |= names_in(node.annotation)
        elif isinstance(node, Function):
            names |= names_in(node.args).union(*(names_in(returned) for returned in [node.returns] if returned))
    known = sources_of(tree)
    imports = {known[name] for name in names - {"Subscription", "AssetReader"} if name in known}
    imports |= {
        "import functools",
        "import os",
        "from grym_fetch import manager as asynchronous",
        "from grym_fetch.runtime.loop_file import AssetFile",
        "from grym_fetch.runtime.loop_thread import Blocking",
        "from grym_fetch.runtime.loop_thread import EventStream",
    }
    body = "\n".join(indented(twin_of(node, text), 4) for node, text in members)
    text = (
        HEAD
        + "\n".join(sorted(imports))
        + f'\n\n__all__ = ["AssetFile", "{CLASS}", "EventStream"]\n\n\n'
        + f"class {CLASS}(Blocking[asynchronous.{CLASS}]):\n"
        + quoted(CLASS_DOC, 4)
        + "\n"
        + body
    )
    return formatted(text)


def formatted(text: str) -> str:
    """As ``make format`` would leave it."""
    for command in (["check", "--select", "I,F401", "--fix-only", "--quiet"], ["format"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(TARGET), "-"],
            cwd=ROOT,
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


def main(arguments: list[str]) -> int:
    """Write the module, or with ``--check`` say whether it is up to date."""
    try:
        new = generate(SOURCE.read_text(encoding="utf-8"))
    except Unknown as error:
        print(f"{error}: say in tools/generate_blocking.py how it is called without await", file=sys.stderr)
        return 1
    if "--check" not in arguments:
        TARGET.write_text(new, encoding="utf-8")
        return 0
    if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != new:
        print(f"{TARGET.relative_to(ROOT)} is not what {SOURCE.name} makes of it: run `make blocking`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
