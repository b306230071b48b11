"""Manifests as files: found, read in three formats, changed and converted; and which of them share a folder."""
