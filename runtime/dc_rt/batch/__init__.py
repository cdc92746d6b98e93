"""Many videos, one after the other and beside one another: what is asked for, who does it, and how it ended."""

REPORT = "dc-rt-batch.json"
"""What a report is called among the results; here, as `dc-rt --help` names it, and waits for no library."""
