"""Unix sockets between Doorward's own processes: private files, and the peer's uid checked."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from doorward.core.errors import ConflictError, UnavailableError

_CREDENTIALS: Final = struct.Struct("3i")
_LONGEST: Final = 107
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
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket_address(path) as address:
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


@contextlib.contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """Yield what to bind or connect to for the socket at `path`; valid inside the block only.

    The kernel takes 107 bytes. A longer path is reached through its directory's descriptor.
    Raises OSError when that directory cannot be entered.
    """
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _clear(path: Path) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise ConflictError(f"{path} is there and is no socket", hint="Move it away.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            with socket_address(path) as address:
                probe.connect(address)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
    raise ConflictError(f"a process already serves {path}", hint="Stop it first, or use another --data.")
