"""From a short address (``hf://org/repo/file``) to assets: what a new source has to implement. Public."""

from __future__ import annotations

from grym_fetch.sources.protocol import AssetSource, Page, Resolved, SourceFile, Web

__all__ = ["AssetSource", "Page", "Resolved", "SourceFile", "Web"]
