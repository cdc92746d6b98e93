"""What a disk or an installation refuses, in a sentence: what is wrong, and the fix."""

from __future__ import annotations

import errno
import os
import re
from importlib.util import find_spec

from dc_rt.installation import install_command

DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
OURS = ("dc_rt", "dc_export", "depthcrafter")
FREE_SPACE = "free some space, then run the same command again"


def disk_error(error: Exception) -> OSError | None:
    """What the system refused, if that is what an error is; safetensors has errors of its own for it."""
    if isinstance(error, OSError):
        return error
    if type(error).__name__ == "SafetensorError" and (found := re.search(r"\(os error (\d+)\)", str(error))):
        return OSError(int(found[1]), os.strerror(int(found[1])))
    return None


def refused_by_disk(error: OSError) -> str:
    """The sentence for what the system refused to read or to write."""
    # Where a file is renamed, the second name is the one that is refused.
    path = error.filename2 or error.filename
    where = f" ({path})" if path else ""
    if error.errno in DISK_FULL:
        return f"The disk is full, and nothing more can be written{where}; {FREE_SPACE}."
    if error.errno == errno.EROFS:
        return f"The disk is read-only{where}; give a folder on another."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"There is no permission to read or write here{where}; give another folder, or change its permissions."
    if error.errno == errno.ENAMETOOLONG:
        return f"A name is too long for this file system{where}; give a shorter one."
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"A file is where a folder has to be{where}; give another folder."
    if error.errno == errno.EISDIR:
        return f"A folder is where a file has to be{where}; give another folder."
    return f"The system refuses to read or write ({error}); see what is wrong with the disk, then run this again."


def missing_module(error: ImportError) -> str | None:
    """The sentence for a library that is not there or broken; None for a module of ours, whose lack is a bug."""
    module = (error.name or "").partition(".")[0]
    if module in OURS:
        return None
    command = install_command("export")
    if module and not find_spec(module):
        return f"dc-export needs {module}, which is not installed; install what exporting takes with `{command}`."
    reason = str(error).strip().split("\n", 1)[0].rstrip(".")
    what = f"{module} is installed and cannot be loaded" if module else "A library cannot be loaded"
    return f"{what} ({reason}); install what exporting takes again with `{command}`."
