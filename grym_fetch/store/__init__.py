"""The store that all projects of a machine share, and what else of an asset is on this machine already."""
