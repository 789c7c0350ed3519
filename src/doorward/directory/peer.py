"""Unix sockets between Doorward's own processes: private files, and the peer's uid checked."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final

from doorward.core.errors import ConflictError, UnavailableError

_CREDENTIALS: Final = struct.Struct("3i")
_MAX_PATH: Final = 107
_BACKLOG: Final = 64


def uid_of(connection: socket.socket) -> int:
    """Return the uid at the other end, as the kernel tells it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at `path`, which only its owner may connect to.

    What a stopped process left there is replaced; raise ConflictError if a process still answers
    there, UnavailableError if the path cannot be used.
    """
    address = reachable(path)
    _clear(path, address)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address)
        # Nobody can connect before listen(), so there is no moment with wider rights.
        path.chmod(0o600)
        listener.listen(_BACKLOG)
        listener.settimeout(0)
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"cannot listen at {path}: {error.strerror}", hint="Check the data directory's owner."
        ) from error
    return listener


def reachable(path: Path) -> str:
    """Return the path as a socket address: relative if the absolute one is too long for the system."""
    for candidate in (str(path), os.path.relpath(path)):
        if len(os.fsencode(candidate)) <= _MAX_PATH:
            return candidate
    raise UnavailableError(
        f"the socket path {path} is longer than {_MAX_PATH} bytes", hint="Use a shorter data directory."
    )


def _clear(path: Path, address: str) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise ConflictError(f"{path} is there and is no socket", hint="Move it away.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
    raise ConflictError(f"a process already serves {path}", hint="Stop it first, or use another --data.")
