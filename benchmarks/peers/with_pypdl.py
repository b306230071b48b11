"""pypdl: four segments, not verified."""

import sys

from pypdl import Pypdl

url, file, _ = sys.argv[1:]
Pypdl().start(url, file, segments=4, display=False, etag_validation=False)
