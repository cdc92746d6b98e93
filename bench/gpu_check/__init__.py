"""Everything that has to be tried on a GPU, a file a step; see check.py."""
