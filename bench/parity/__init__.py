"""Where two backends differ."""
