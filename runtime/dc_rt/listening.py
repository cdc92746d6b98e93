"""Where a service listens: on this machine alone, or for others too."""

from __future__ import annotations

import ipaddress
import os
import socket

from dc_rt.errors import UserError, option


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, backlog: int | None = None) -> socket.socket:
    """A socket that listens there; raises `UserError` where that cannot be."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(found[0][4][:2], family=found[0][0], backlog=backlog)
    except UnicodeError:
        why = "it is no name of a machine"
    except socket.gaierror as error:
        why = str(error.strerror)
    except OSError as error:
        why = os.strerror(error.errno or 0)  # without the address, which Python adds to it
    raise UserError(
        f"Nothing can listen on {host}, port {port} ({why}); give another {option('port')} or {option('host')}."
    )


def address(listening: socket.socket) -> str:
    """Where it is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
