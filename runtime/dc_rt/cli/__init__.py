"""The command `dc-rt`: what is typed, and nothing else."""

from __future__ import annotations

import errno
import sys

from dc_rt.cli.streams import protect_streams


def main() -> None:
    """Run the command line: what a user can cause is one sentence and exit status 1."""
    output = protect_streams()
    from dc_rt.cli.terminal import complain, sentence_of
    from dc_rt.errors import UserError

    status: str | int | None = 1
    try:
        from dc_rt.cli.app import app  # which looks at what installed packages add

        app()
    except SystemExit as end:
        status = end.code
    except (UserError, OSError) as error:
        complain(sentence_of(error))
    sys.stdout.flush()
    # A reader that has left, as `head` does, has what it wanted; but what should have been kept and was not is a fault.
    # Windows has EINVAL for a closed pipe.
    if output and output.error and output.error.errno not in (errno.EPIPE, errno.EINVAL):
        status = status or 1
    sys.exit(status)
