"""What a run survives, and what it costs."""
