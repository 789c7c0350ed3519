"""Ask the parser process; its death, silence or nonsense is a refusal."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec

from doorward.core.errors import InvalidPolicyError

TIMEOUT = 90.0
_COMMAND = (sys.executable, "-I", "-m", "doorward.cedar.parser_process")


def ask(
    question: dict[str, Any], *, timeout: float = TIMEOUT, command: tuple[str, ...] = _COMMAND
) -> dict[str, Any]:
    """Return the parser's answer; raise InvalidPolicyError when it crashed or took too long (seconds)."""
    try:
        done = subprocess.run(  # noqa: S603 -- our own interpreter and module, no shell
            command,
            input=msgspec.json.encode(question),
            capture_output=True,
            timeout=timeout,
            env={},
            check=False,
        )
    except subprocess.TimeoutExpired as reason:
        raise InvalidPolicyError(
            f"reading the policies took longer than {timeout:g} seconds",
            hint="Split or simplify them; nothing was changed.",
        ) from reason
    if done.returncode != 0:
        raise InvalidPolicyError(
            f"the policy parser did not survive this text ({_death(done)})",
            hint="Simplify the policy that was changed last; nothing was changed here.",
        )
    answer: dict[str, Any] = msgspec.json.decode(done.stdout)
    return answer


def _death(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        return f"signal {-done.returncode}"
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return f"exit {done.returncode}{': ' + last[:200] if last else ''}"
