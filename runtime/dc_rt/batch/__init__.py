"""Many videos, one after the other and beside one another: what is asked for, who does it, and how it ended."""
