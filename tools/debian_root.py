"""Runs the tests in a Debian of its own, with the Python that it brings: ``python -m tools.debian_root SUITE``.

::

    python -m tools.debian_root trixie                        # Debian 13, Python 3.13: make test
    python -m tools.debian_root sid -- -x tests/disk          # what is to come: these arguments for pytest

``EXTRAS=dev,speed,components`` in the environment is for `make` there, which then installs again.

Needs root and `debootstrap`. The root is made once, below ``--roots``; the files that git knows or would add are copied
into it each time, so nothing that runs there can change the checkout. What is mounted, and what is still running, ends
with this program: it has a mount and a process namespace of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
MIRROR = "http://deb.debian.org/debian"
# With all that .ci/run installs: without them, tests are skipped.
PROGRAMS = (
    "btrfs-progs", "ca-certificates", "curl", "fish", "git", "git-lfs", "make", "nginx-light", "openssl", "procps",
    "python3", "python3-venv", "strace", "tinyproxy", "xfsprogs", "zsh",
)  # fmt: skip
NOT_IN_EVERY_SUITE = ("docker-registry",)
DEFAULT_ROOTS = Path("/var/tmp/grym-fetch-roots")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_MADE = "grym-fetch-made"
_SOURCE = "src"
# The root is bound onto itself, as only a mount point can be entered by the containers that tests make.
_INSIDE = """
set -eu
mount --bind "$1" "$1"
mount -t proc none "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs none "$1/dev/shm"
cp -L /etc/resolv.conf "$1/etc/resolv.conf"
root="$1"; shift
exec chroot "$root" "$@"
"""

# A mirror that has not been updated for long is good enough, as it is for debootstrap.
_INSTALL = """
set -eu
perhaps="$1"; shift
apt-get update -qq -o Acquire::Check-Valid-Until=false
for name in $perhaps; do
  if apt-cache show "$name" >/dev/null 2>&1; then set -- "$@" "$name"; fi
done
exec apt-get install -y -qq --no-install-recommends "$@"
"""


def make_root(suite: str, roots: Path) -> Path:
    """Return the root of a suite; what is not there yet is made and installed."""
    root = roots / suite
    made = root / _MADE
    if not made.exists():
        shutil.rmtree(root, ignore_errors=True)
        roots.mkdir(parents=True, exist_ok=True)
        subprocess.run(["debootstrap", "--variant=minbase", suite, root, MIRROR], check=True)
        made.touch()
    wanted = " ".join(PROGRAMS + NOT_IN_EVERY_SUITE)
    if made.read_text(encoding="utf-8") != wanted:
        # apt-get understands dependencies better than `debootstrap --include`.
        command = ["env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", _INSTALL, "sh"]
        command += [" ".join(NOT_IN_EVERY_SUITE), *PROGRAMS]
        if _run_inside(root, command, "/") != 0:
            sys.exit(f"cannot install what the tests need in {root}")
        made.write_text(wanted, encoding="utf-8")
    return root


def files_of_the_checkout() -> list[str]:
    """The files that git knows or would add, relative to the checkout; without git, all but hidden ones."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if not (CHECKOUT / ".git").exists():
        found = (path.relative_to(CHECKOUT) for path in CHECKOUT.rglob("[!.]*") if path.is_file())
        return [str(path) for path in found if not any(part.startswith((".", "__pycache__")) for part in path.parts)]
    listed = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, check=True).stdout
    return [name for name in map(os.fsdecode, listed.split(b"\0")) if name and (CHECKOUT / name).exists()]


def copy_checkout(root: Path) -> None:
    """Copy the checkout into a root, and leave out what git ignores; what is installed there stays."""
    source = root / _SOURCE
    source.mkdir(exist_ok=True)
    for there in source.iterdir():
        if there.name == ".venv":
            continue
        if there.is_dir() and not there.is_symlink():
            shutil.rmtree(there)
        else:
            there.unlink()
    for name in files_of_the_checkout():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        # With its time: `make` installs again only if what it needs has changed.
        shutil.copy2(CHECKOUT / name, source / name, follow_symlinks=False)


def run_inside(root: Path, command: list[str], *, folder: str = f"/{_SOURCE}", path: str = _PATH) -> int:
    """Run a command in a folder of a root, and return its exit code. It sees few variables of ours."""
    known = ("PIP_", "HYPOTHESIS_", "EXTRAS")
    kept = {name: value for name, value in os.environ.items() if name.startswith(known) or name == "CI"}
    if bundle := os.environ.get("SSL_CERT_FILE"):
        shutil.copy(bundle, root / "etc" / "ssl" / "certs" / "ca-certificates.crt")
        kept["PIP_CERT"] = "/etc/ssl/certs/ca-certificates.crt"
    variables = {"HOME": "/root", "LANG": "C.UTF-8", "PATH": path} | kept
    told = [f"{name}={value}" for name, value in variables.items()]
    return _run_inside(root, ["env", "-i", *told, *command], folder)


def _run_inside(root: Path, command: list[str], folder: str) -> int:
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _INSIDE, "sh", str(root)]
    return subprocess.run([*unshare, "env", "-C", folder, *command], check=False).returncode


def main() -> int:
    """Make the root, copy, and run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tools.debian_root", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("suite", help="trixie, sid, …")
    parser.add_argument("--roots", type=Path, default=DEFAULT_ROOTS, metavar="DIR")
    parser.add_argument("arguments", nargs="*", help="for pytest; none: make test")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root, to make a root and to enter it")
    if shutil.which("debootstrap") is None:
        parser.error("needs debootstrap: apt-get install debootstrap")
    root = make_root(chosen.suite, chosen.roots)
    copy_checkout(root)
    if "EXTRAS" in os.environ:
        (root / _SOURCE / ".venv" / ".ready").unlink(missing_ok=True)
    command = ["make", "test"]
    if chosen.arguments:
        ready = run_inside(root, ["make", ".venv/.ready"])
        if ready != 0:
            return ready
        command = [".venv/bin/python", "-m", "pytest", *chosen.arguments]
    return run_inside(root, command)


if __name__ == "__main__":
    sys.exit(main())
