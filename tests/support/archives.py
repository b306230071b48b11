"""Archives made in memory."""

from __future__ import annotations

import io
import zipfile


def zip_of(files: dict[str, bytes], *, mode: int = 0o100644, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these files, each with this mode."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.create_system, entry.compress_type = mode << 16, 3, method
            archive.writestr(entry, content)
    return out.getvalue()
