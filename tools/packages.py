"""Builds the packages of a release into ``dist/``, and shows that they are good: ``python -m tools.packages``.

Three things are shown. The build is reproducible and the sdist complete: built again from the unpacked sdist, in
another folder, both files are the same. The index would accept them (`twine check`). Each can be installed into
an empty environment, ``.venv/installed``, and starts there; the wheel is what stays in it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
DIST = CHECKOUT / "dist"
INSTALLED = CHECKOUT / ".venv" / "installed"


def build(source: Path, target: Path) -> tuple[Path, Path]:
    """Build the wheel and the sdist of ``source`` into an empty folder, and return them."""
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(target)]
    subprocess.run(command, cwd=source, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    [wheel] = target.glob("*.whl")
    [sdist] = target.glob("*.tar.gz")
    return wheel, sdist


def build_twice() -> tuple[Path, Path]:
    """Build into ``dist/``, and again from what the sdist holds; return the first. Ends the program if they differ."""
    wheel, sdist = build(CHECKOUT, DIST)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        [unpacked] = Path(folder).iterdir()
        again = build(unpacked, Path(folder, "dist"))
        for first, second in zip((wheel, sdist), again, strict=True):
            if (first.name, first.read_bytes()) != (second.name, second.read_bytes()):
                sys.exit(f"{first.name} differs when it is built from the sdist: files are missing, or it has a date")
    return wheel, sdist


def install(package: Path, *options: str) -> None:
    """Install a package into the empty environment, and start what it brings."""
    pip = [sys.executable, "-m", "pip", "--python", str(INSTALLED), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, str(package)], check=True)
    # From a folder in which no checkout can be imported.
    for command in (["grym-fetch", "--version"], ["python", "-m", "grym_fetch", "schema"]):
        program = str(INSTALLED / "bin" / command[0])
        subprocess.run([program, *command[1:]], cwd=INSTALLED, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Build, check, install."""
    wheel, sdist = build_twice()
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)], check=True)
    venv.create(INSTALLED, clear=True)
    install(sdist, "--constraint", str(CHECKOUT / "constraints.txt"))
    install(wheel, "--no-deps", "--force-reinstall")
    print(f"{wheel.name} and {sdist.name} in {DIST}: reproducible, accepted by twine, installed and started")
    return 0


if __name__ == "__main__":
    sys.exit(main())
