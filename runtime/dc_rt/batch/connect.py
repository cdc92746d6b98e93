"""The way into a cluster of Ray, or a sentence that says why there is none."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from typing import Any

from dc_rt.errors import UserError, option
from dc_rt.installation import install_command

log = logging.getLogger(__name__)

AUTO = "auto"
ADDRESS = "RAY_ADDRESS"

_SECONDS = 30.0
_CONNECT_SECONDS = 5.0

# Ray waits for minutes where nobody answers, and may end the process then: another process finds out first.
_TRY = """
import json, logging, sys, ray
try:
    ray.init(address=sys.argv[1], logging_level=logging.CRITICAL, log_to_driver=False)
except Exception as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps(None))
"""


def connect(address: str) -> Any:
    """Connect this process to the cluster at `address`; the module `ray`.

    Args:
        address: HOST:PORT; or "auto", for what $RAY_ADDRESS names, else for the cluster that `ray start` has started
            on this machine. None is ever started.

    Raises:
        UserError: Ray is not installed, none answers there, it is of another version, or this machine is not a part
            of the cluster.
    """
    try:
        # Else a call after the end, by a thread that was slow, would start a cluster of its own, and hang.
        os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
        import ray
    except ImportError as error:
        raise UserError(
            f"Ray is not installed, and {option('cluster')} needs it; install it with `{install_command('cluster')}`."
        ) from error
    _check_address(address)
    if not _is_anybody_at(os.environ.get(ADDRESS, "") if address == AUTO else address):
        raise UserError(in_a_sentence(address, ""))
    if (failure := _failure_of(address)) is not None:
        raise UserError(in_a_sentence(address, failure))
    # What processes on the nodes print, and Ray about them, is much; it is in Ray's logs there too.
    is_verbose = log.isEnabledFor(logging.DEBUG)
    level = logging.INFO if is_verbose else logging.CRITICAL
    ray.init(address=address, logging_level=level, log_to_driver=is_verbose)
    return ray


def _check_address(address: str) -> None:
    """Ray would start a cluster for some, and has a client of its own for others, which gives no events."""
    if address == AUTO:
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isascii() or not port.isdecimal():
        raise UserError(
            f"{option('cluster', address)} is no address; give {AUTO}, or HOST:PORT as `ray start --head` prints it."
        )


def _is_anybody_at(address: str) -> bool:
    """False where it is known to be in vain: Ray would try for long."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        return True
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS):
            return True
    except (OSError, OverflowError):
        return False


def _failure_of(address: str) -> str | None:
    """What Ray says when it cannot connect; "" where it says nothing in time; None where it can."""
    command = [sys.executable, "-c", _TRY, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        said: str | None = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return ""
    return said


def in_a_sentence(address: str, failure: str) -> str:
    where = f"the cluster at {address}"
    if address == AUTO:
        named = os.environ.get(ADDRESS)
        where = f"the cluster at {named} (${ADDRESS})" if named else "the cluster that was started on this machine"
    if "Could not find any running Ray instance" in failure:
        return (
            f"No cluster was started on this machine, and ${ADDRESS} names none; start one with `ray start --head`, or "
            f"give {option('cluster', 'HOST:PORT')}."
        )
    if not failure or "Failed to connect" in failure or "Timed out" in failure:
        return f"Nothing of Ray answers for {where}; check that `ray status` shows it, and start it again if not."
    if "Version mismatch" in failure:
        return (
            f"Ray or Python has another version here than in {where} ({' '.join(failure.split())}); use the same of "
            "both on all machines."
        )
    if "node_ip_address" in failure or "no node" in failure.lower() or "raylet" in failure.lower():
        return (
            f"This machine is not a node of {where}; add it with `ray start --address=HOST:PORT` (and --num-cpus=0 "
            "--num-gpus=0 if it is to run no videos), or start the batch on a node."
        )
    return f"Ray cannot connect to {where} ({' '.join(failure.split())}); check that `ray status` works here."
