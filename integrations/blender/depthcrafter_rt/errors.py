"""The one exception for what goes wrong in ways that a user can mend."""


class Problem(Exception):
    """What is wrong and what mends it, in one sentence, which is shown where the person looks."""
