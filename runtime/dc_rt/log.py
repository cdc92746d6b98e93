"""What `dc-rt` and `dc-export` log, and where it goes: loggers are named by module, under these packages."""

from __future__ import annotations

import logging

PACKAGES = ("dc_rt", "dc_export")

_handler: logging.Handler = logging.NullHandler()


def set_up(verbose: bool) -> None:
    """Log to standard error: warnings, each a plain line; with `verbose` all there is, with time and module.

    For programs; a library that is imported sets up nothing. Of several calls the last one holds.
    """
    global _handler
    previous, _handler = _handler, logging.StreamHandler()
    if verbose:
        _handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.removeHandler(previous)
        logger.addHandler(_handler)
        logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
