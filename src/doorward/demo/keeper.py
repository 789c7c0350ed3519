"""Run one command and end its whole process group when whoever started this is gone.

`python keeper.py LIFELINE GRACE COMMAND...`: LIFELINE is the reading end of a pipe. It closes when the
starter stops or dies, kill -9 included; then the group gets SIGTERM, and SIGKILL after GRACE seconds.
Imports the standard library alone, so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

_POLL = 0.1


def main(lifeline: int, grace: float, command: list[str]) -> int:
    """Return the command's exit status, or 0 if it was asked to stop."""
    child = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while child.poll() is None and not asked:
        readable, _, _ = select.select([lifeline], [], [], _POLL)
        if readable and not os.read(lifeline, 1):
            break
    stopped = child.poll() is None
    end_group(child, grace)
    return 0 if stopped else child.returncode


def end_group(child: subprocess.Popen[bytes], grace: float) -> None:
    """End everything in the child's group, politely first."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and _lives(child):
        time.sleep(_POLL / 2)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _lives(child: subprocess.Popen[bytes]) -> bool:
    child.poll()
    try:
        os.killpg(child.pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
