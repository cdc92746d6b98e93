"""Time and memory of every backend."""
