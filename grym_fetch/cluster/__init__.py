"""The same engine on many machines: work is cut into tasks, which an engine such as Dask hands to its workers."""
