"""Archives: reading them without trusting them, and the trees they are unpacked into."""
