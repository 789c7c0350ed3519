"""Find token counts and the answering model in an answer's bytes, without reading it as a whole."""

from __future__ import annotations

import json
import re

import msgspec

# The usage object stands in the last event or at the end of a whole answer (a Responses API answer
# repeats its request before it, so the tail is generous); the model's name stands near the start of an
# event or after the choices.
_HEAD = 4 * 1024
_TAIL = 64 * 1024
# Inside a JSON string a quote is escaped, so these cannot be text written by the model.
_USAGE = re.compile(rb'(?<!\\)"usage"\s*:\s*(?=\{)')
_MODEL = re.compile(rb'(?<!\\)"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_DECODER = json.JSONDecoder()


class UsageScanner:
    """Watch an answer pass and keep its ends; memory is bounded by 132 KiB."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._head = bytearray()
        self._tail = bytearray()

    def watch(self, chunk: bytes) -> None:
        """See one chunk; it is not changed."""
        if len(self._head) < _HEAD:
            self._head += chunk[: _HEAD - len(self._head)]
        self._tail += chunk
        if len(self._tail) > 2 * _TAIL:
            del self._tail[:-_TAIL]

    def tokens(self) -> dict[str, int]:
        """Return `tokens_in` and `tokens_out` as the upstream counted them, as far as it did."""
        usage: object = None
        if self._tail.rfind(b'"usage"') < 0:
            return {}
        # The last one that can be read counts.
        for match in reversed(list(_USAGE.finditer(self._tail, self._tail.find(b'"usage"')))):
            try:
                usage, _ = _DECODER.raw_decode(self._tail[match.end() :].decode(errors="replace"))
            except ValueError:
                continue
            break
        if not isinstance(usage, dict):
            return {}
        found = {
            "tokens_in": usage.get("prompt_tokens", usage.get("input_tokens")),
            "tokens_out": usage.get("completion_tokens", usage.get("output_tokens")),
        }
        return {name: count for name, count in found.items() if type(count) is int and count >= 0}

    def model(self) -> str | None:
        """Return the model that the upstream says answered, or None."""
        match = _MODEL.search(self._head, _near(self._head)) or _MODEL.search(self._tail, _near(self._tail))
        if match is None:
            return None
        try:
            return str(msgspec.json.decode(match[1], type=str))
        except ValueError:
            return None


def _near(data: bytearray) -> int:
    """Return where a pattern for the model's name may start to look: before that it is not there."""
    found = data.find(b'"model"')
    return len(data) if found < 0 else found
