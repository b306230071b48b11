"""The blocking twin is what its generator makes of the asynchronous manager, including future members."""

from __future__ import annotations

import ast
import re

import pytest

from tools.generate_blocking import SOURCE, TARGET, Unknown, class_of, generate

MANAGER = '''
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from grym_fetch.events import Event
from grym_fetch.runtime.bus import Subscription

if TYPE_CHECKING:
    from grym_fetch.core.manifest import Asset


class AssetManager:
    """Awaited."""

    limit: int
    """The most."""

    def __init__(self, config: str | None = None, *, environ: dict[str, str] | None = None) -> None:
        self.limit = 1
{member}
'''


def twin(member: str) -> str:
    """The generated code for one more member of the manager."""
    return generate(MANAGER.replace("{member}", member))


def test_it_is_up_to_date() -> None:
    """The module in the repository is what would be generated now: after changing the manager, run `make blocking`."""
    assert TARGET.read_text(encoding="utf-8") == generate(SOURCE.read_text(encoding="utf-8"))


def test_no_twin_asks_for_a_loop() -> None:
    """Wherever the line is broken, and wherever in a paragraph it says so."""
    asks = re.compile(r"running\s+loop")
    assert asks.search(SOURCE.read_text(encoding="utf-8"))
    assert not asks.search(TARGET.read_text(encoding="utf-8"))


def test_a_new_method_gets_its_twin() -> None:
    """A new method of the manager gets a blocking version, with its parameters and types."""
    text = twin(
        '''
    async def double(self, asset: Asset, /, number: int = 2, *, all: bool = False) -> tuple[Asset, ...]:
        """Twice the number. Needs a running loop.

        Then `aclose` it.
        """
        return asset
'''
    )
    assert "from grym_fetch.core.manifest import Asset\n" in text
    assert (
        "    def double(self, asset: Asset, /, number: int=2, *, all: bool=False) -> tuple[Asset, ...]:\n"
        '        """Twice the number.\n\n'
        "        Then `close` it.\n"
        '        """\n'
        "        return self._run(asynchronous.AssetManager.double, asset, number, all=all)\n"
    ).replace("=2", " = 2").replace("bool=F", "bool = F") in text


@pytest.mark.parametrize(
    ("member", "call"),
    [
        ("def f(self) -> None: 'Do it.'", "self._call(asynchronous.AssetManager.f)"),
        ("def f(self, *a: int, **k: int) -> int: 'Do it.'", "return self._call(asynchronous.AssetManager.f, *a, **k)"),
        ("async def f(self) -> None: 'Do it.'", "self._run(asynchronous.AssetManager.f)"),
        ("def f(self) -> Subscription: 'Do it.'", "return self._stream(asynchronous.AssetManager.f)"),
        ("def f(self) -> Callable[[], None]: 'Do it.'", "return self._register(asynchronous.AssetManager.f)"),
        ("@property\n    def f(self) -> Event: 'Do it.'", "return self._manager.f"),
    ],
)
def test_what_a_method_is_decides_how_it_is_called(member: str, call: str) -> None:
    """What waits runs in the loop, what does not is called directly, and what it returns can be used from outside."""
    functions = {
        node.name: node for node in class_of(ast.parse(twin("    " + member))).body if isinstance(node, ast.FunctionDef)
    }
    assert ast.unparse(functions["f"].body[-1]) == call
    assert ast.get_docstring(functions["f"]) == "Do it."
    assert "return self._manager.limit" in ast.unparse(functions["limit"])


@pytest.mark.parametrize(
    "member",
    [
        "@asynccontextmanager\n    async def f(self) -> int: 'Do it.'",
        "async def f(self) -> Subscription: 'Do it.'",
        "async def f(self): 'Do it.'",
        "async def f(self) -> int: ...",
        "other: int",
    ],
)
def test_what_it_does_not_know_it_does_not_guess(member: str) -> None:
    """A member that cannot be called in one of the known ways stops the generator, which names it."""
    with pytest.raises(Unknown, match=r"AssetManager\.(f|other)"):
        twin("    " + member)


def test_what_is_private_or_by_hand_has_no_twin() -> None:
    """Private methods stay private, and `aclose` is called `close` here."""
    text = twin("    async def _f(self) -> int: 'Do it.'\n    async def aclose(self) -> None: 'Do it.'")
    assert "def _f" not in text
    assert "def aclose" not in text
