"""Start real servers, wait until they answer, stop them: by their own keepers, never by name."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from doorward.core.errors import UnavailableError

_KEEPER = Path(__file__).with_name("keeper.py")
_POLL = 0.05
_LAST_LINES = 12


class Server:
    """One running command; `stop` ends it and everything it started."""

    def __init__(  # noqa: PLR0913 -- what a process is made of
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        directory: Path,
        grace: float = 5.0,
    ) -> None:
        """Start the command with its output in `log`; the environment is added to this process's."""
        self.name = name
        self._log = log
        self._grace = grace
        theirs, self._lifeline = os.pipe()
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, "-S", "-E", str(_KEEPER), str(theirs), str(grace), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs,),
                env={**os.environ, **environment},
                cwd=directory,
                start_new_session=True,  # Ctrl-C reaches the demo alone, which stops things in order
            )
        os.close(theirs)

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Return once `ready` says so; raise UnavailableError with the log's end otherwise."""
        deadline = time.monotonic() + seconds
        while not ready():
            status = self._keeper.poll()
            if status is not None:
                raise UnavailableError(f"{self.name} ended at once (exit {status})", hint=self.log_end())
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{self.name} did not answer within {seconds:.0f} s", hint=self.log_end()
                )
            time.sleep(_POLL)

    def log_end(self) -> str:
        """Return the last lines the command wrote."""
        try:
            lines = self._log.read_text("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return f"{self._log} ends with:\n    " + "\n    ".join(lines[-_LAST_LINES:])

    def stop(self) -> None:
        """End the command's whole process group; stopping twice is no error."""
        if self._lifeline < 0:
            return
        os.close(self._lifeline)
        self._lifeline = -1
        try:
            self._keeper.wait(self._grace + 5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._keeper.pid, signal.SIGKILL)
            self._keeper.wait()


def free_port(preferred: int = 0) -> int:
    """Return a free loopback port, the preferred one if it is free."""
    for candidate in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            port: int = probe.getsockname()[1]
            return port
    raise UnavailableError("no loopback port is free")


def listens(port: int) -> bool:
    """Return whether something accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
