"""Sizes on the command line: SIZE_MB before the folder, or ``--size`` with its unit."""

from __future__ import annotations

import math
import re

import click
from click.core import ParameterSource

from grym_fetch.cli.options import option

MIB = 1024 * 1024


class Megabytes(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """A number of MB (1024 * 1024 bytes), which may be a fraction; converted to bytes."""

    name = "size_mb"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the number, or fail with what is allowed."""
        try:
            size = float(str(value))
        except ValueError:
            size = math.nan
        if not 0 <= size < 2**40:
            self.fail(f"{value!r} is not a size in MB; try 10 or 0.5. The folder comes after it.", param, ctx)
        return int(size * MIB)


class Size(click.ParamType):  # type: ignore[type-arg]  # as above
    """A size such as ``10MB`` or ``500KB``, in bytes; units are powers of 1024, and a bare number is MB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the size, or fail with what is allowed."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(
            r"(\d{1,12}(?:\.\d{1,12})?) ?([KMGT]?)(?:i?B)?", str(value).strip(), re.ASCII | re.IGNORECASE
        )
        if match is None:
            self.fail(f"{value!r} is not a size; try 10MB, 500KB or 1.5GB", param, ctx)
        unit = match[2].upper() or ("" if str(value).strip()[-1] in "bB" else "M")
        return int(float(match[1]) * 1024 ** " KMGT".index(unit or " "))


def exact_size(count: int) -> str:
    """Bytes as `Size` reads them, to the byte, in the largest unit that has no fraction."""
    for factor, unit in ((1024**3, "GB"), (MIB, "MB"), (1024, "KB")):
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return f"{count}B"


size_option = option(
    "--size",
    type=Size(),
    metavar="SIZE",
    help="In the place of SIZE_MB, with its unit: 10MB, 500KB. Then DIR comes first.",
)


def chosen_size(size: int | None, *words: str | None) -> tuple[int, list[str | None]]:
    """The size, and the remaining words: with ``--size``, all of them. A size in the environment is only a default."""
    context = click.get_current_context()
    if size is not None and context.get_parameter_source("size") is ParameterSource.COMMANDLINE:
        if words[-1] is not None:
            raise click.UsageError("with --size there is no SIZE_MB: leave it out")
        return size, [None, *words][1:]
    limit, *others = words
    if limit is None:
        return (10 * MIB if size is None else size), [*others, None]
    parameter = next(each for each in context.command.params if each.name == "limit")
    return Megabytes().convert(limit, parameter, context), [*others, None]
