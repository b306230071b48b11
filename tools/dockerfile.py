"""Does what the Dockerfile says, without a daemon, in a Debian root: ``python -m tools.dockerfile SUITE``.

Each stage begins with an empty environment of the root's Python in the place of the image's, and with none of the
folders that stages make. At the end the entry point is started with the Dockerfile's own words. Needs root.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tools.debian_root import CHECKOUT, DEFAULT_ROOTS, files_of_the_checkout, make_root, run_inside

FILE = CHECKOUT / "Dockerfile"
_PYTHON = "/opt/python"
_PATH = f"{_PYTHON}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OWN = ("opt/python", "src", "wheels", "project")
"""What stages make, and what a new stage does not have."""


@dataclass(slots=True)
class Stage:
    """One stage: its name, its image, and its instructions in order, as (name, argument)."""

    name: str
    image: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def read(text: str) -> list[Stage]:
    """Read a Dockerfile. Raises `ValueError` for anything that is not understood here."""
    stages: list[Stage] = []
    joined = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    for line in filter(None, map(str.strip, joined.splitlines())):
        instruction, _, argument = line.partition(" ")
        match instruction, argument.split():
            case "FROM", [image]:
                stages.append(Stage("", image))
            case "FROM", [image, "AS", name]:
                stages.append(Stage(name, image))
            case (("WORKDIR" | "RUN" | "COPY" | "ENTRYPOINT" | "CMD"), [_, *_]) if stages:
                stages[-1].steps.append((instruction, argument))
            case _:
                raise ValueError(f"not understood: {line}")
    return stages


def context(ignore: str) -> list[str]:
    """The files that ``.dockerignore`` leaves for `docker build`; the last pattern that fits counts."""
    found = []
    for name in files_of_the_checkout():
        parts = name.split("/")
        names = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        is_left_out = False
        for pattern in filter(None, map(str.strip, ignore.splitlines())):
            if not pattern.startswith("#") and any(fnmatch.fnmatch(each, pattern.lstrip("!")) for each in names):
                is_left_out = not pattern.startswith("!")
        if not is_left_out:
            found.append(name)
    return found


def perform(root: Path, stages: list[Stage]) -> int:
    """Do the steps of every stage in one root; return the exit code of the last command."""
    kept = root / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    folder = "/"
    start: tuple[list[str], list[str]] = ([], [])
    for stage in stages:
        for name in _OWN:
            shutil.rmtree(root / name, ignore_errors=True)
        if run_inside(root, ["python3", "-m", "venv", _PYTHON], folder="/") != 0:
            return 1
        folder = "/"
        for instruction, argument in stage.steps:
            print(f"{instruction} {argument}", flush=True)
            if instruction == "WORKDIR":
                folder = argument
                (root / folder.lstrip("/")).mkdir(exist_ok=True)
            elif instruction == "COPY":
                _copy(root, kept, argument.split(), folder)
            elif instruction in ("ENTRYPOINT", "CMD"):
                start[instruction == "CMD"][:] = json.loads(argument)
            elif (code := run_inside(root, ["sh", "-c", argument], folder=folder, path=_PATH)) != 0:
                return code
        for name in _OWN[1:]:
            if (root / name).exists():
                shutil.copytree(root / name, kept / stage.name / name, symlinks=True)
    return run_inside(root, [*start[0], *start[1]], folder=folder, path=_PATH)


def _copy(root: Path, kept: Path, words: list[str], folder: str) -> None:
    match words:
        case [option, source, target] if option.startswith("--from="):
            shutil.copytree(kept / option.partition("=")[2] / source.lstrip("/"), root / target.lstrip("/"))
        case [".", "."]:
            for name in context((CHECKOUT / ".dockerignore").read_text(encoding="utf-8")):
                place = root / folder.lstrip("/") / name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, place)
        case _:
            raise ValueError(f"not understood: COPY {' '.join(words)}")


def main() -> int:
    """Do the steps in a root."""
    parser = argparse.ArgumentParser(prog="python -m tools.dockerfile", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("suite", nargs="?", default="trixie")
    parser.add_argument("--roots", type=Path, default=DEFAULT_ROOTS, metavar="DIR")
    chosen = parser.parse_args()
    return perform(make_root(chosen.suite, chosen.roots), read(FILE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(main())
