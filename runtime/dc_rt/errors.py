"""The one exception for what a user can cause."""

from __future__ import annotations


class UserError(Exception):
    """What is wrong and what mends it, in one sentence.

    The command line prints the sentence and exits with status 1; every other exception is a bug.
    """
