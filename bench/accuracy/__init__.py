"""How near depth is to the truth."""
