"""bytehaul: four connections, verified."""

import sys

import bytehaul

url, file, digest = sys.argv[1:]
bytehaul.download(url, output_path=file, max_connections=4, checksum_sha256=digest)
