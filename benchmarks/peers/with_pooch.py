"""pooch: one connection, verified afterwards."""

import sys
from pathlib import Path

import pooch

url, file, digest = sys.argv[1:]
pooch.retrieve(url, known_hash=f"sha256:{digest}", path=Path(file).parent, fname=Path(file).name)
