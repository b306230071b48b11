"""One asset's way from the first request to the file, and many small ones'."""
