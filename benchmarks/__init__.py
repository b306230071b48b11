"""Speed, measured against the tools that are installed: ours and theirs in turn, in one run."""
