"""Everything that has to be tried on a GPU; see check.py."""
