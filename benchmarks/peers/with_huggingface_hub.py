"""huggingface_hub: plain HTTP from a hub of our own, the size compared and nothing else.

With a fourth argument, a folder, it downloads into its cache there.
"""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

url, file, _, *cache = sys.argv[1:]
address = urlsplit(url)
os.environ |= {"HF_ENDPOINT": f"{address.scheme}://{address.netloc}", "HF_HUB_DISABLE_XET": "1"}
os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

from huggingface_hub import hf_hub_download  # noqa: E402 - it reads its environment when it is imported

owner, name, _, revision, path = address.path.strip("/").split("/", 4)
if cache:
    hf_hub_download(f"{owner}/{name}", path, revision=revision, cache_dir=cache[0])
else:
    hf_hub_download(f"{owner}/{name}", path, revision=revision, local_dir=Path(file).parent, force_download=True)
