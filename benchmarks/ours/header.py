"""Read the header of a safetensors file while the rest still comes; prints the seconds from opening to the header."""

import json
import sys
import time

from grym_fetch.blocking import AssetManager

with AssetManager() as manager:
    began = time.perf_counter()
    with manager.open_asset(sys.argv[1]) as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        took = time.perf_counter() - began
        assert header["weights"]["dtype"] == "U8"
        assert not manager.check_asset(sys.argv[1]).exists, "all of it was there before the header was read"
        later = file.read(4 * 1024 * 1024)  # the rest still comes
        assert len(later) == 4 * 1024 * 1024
print(took)
