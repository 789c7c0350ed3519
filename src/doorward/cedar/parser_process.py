"""The process in which untrusted policy text meets Cedar's parser: if it dies, only it dies.

Run as `python -I -m doorward.cedar.parser_process`: one JSON question on stdin, one JSON answer on
stdout. It imports nothing of the house, holds no secret and gets an empty environment.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import cedarpy

_STACK = 256 * 1024 * 1024
_CPU_SECONDS = 120
_MEMORY = 4 * 1024 * 1024 * 1024
_UNFINISHED = "unexpected end of input"
_SEARCHED = 1000  # tokens of a policy in which the place of an error is looked for


def _parse(text: str) -> tuple[dict[str, Any] | None, str]:
    """Return the one policy in `text` as a tree, or what is wrong."""
    try:
        document = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as reason:
        return None, str(reason)
    if document["templates"] or document["templateLinks"]:
        return None, "a template (a slot with `?`) cannot be used here"
    found = list(document["staticPolicies"].values())
    if len(found) != 1:
        return None, f"one policy was expected here, {len(found)} were read"
    tree: dict[str, Any] = found[0]
    try:
        cedarpy.PolicySet.from_json_str(_as_set({"policy": tree}))
    except ValueError:
        return None, "the policy is nested too deep to be evaluated"
    return tree, ""


def _as_set(policies: dict[str, Any]) -> str:
    return json.dumps({"templates": {}, "templateLinks": [], "staticPolicies": policies})


def _fails_at(text: str, ends: list[int]) -> int:
    """Return the index of the first token after which no policy can go on."""
    for number, end in enumerate(ends[:_SEARCHED]):
        if _parse(text[:end])[1] != _UNFINISHED:
            return number
    return len(ends) - 1


def _policy(text: str, ends: list[int], schema: cedarpy.Schema) -> dict[str, Any]:
    tree, error = _parse(text)
    if tree is None:
        return {"error": error, "token": _fails_at(text, ends)}
    verdict = cedarpy.validate_policies(text, schema)
    invalid = [] if verdict.validation_passed else [str(e.error) for e in verdict.errors] or ["not valid"]
    return {"tree": tree, "invalid": invalid}


def _whole(text: str) -> list[dict[str, Any]]:
    """Return all policies of a file in order, as the parser sees the file as one."""
    try:
        document = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError:
        return []
    found: dict[str, dict[str, Any]] = document["staticPolicies"]
    return [found[f"policy{n}"] for n in range(len(found))]


def admit(question: dict[str, Any]) -> dict[str, Any]:
    """Parse and validate every policy of every file against the schema."""
    try:
        schema = cedarpy.Schema.from_str(question["schema"])
    except ValueError as reason:
        return {"schema_error": str(reason)}
    files = []
    for file in question["files"]:
        policies = [_policy(part["text"], part["ends"], schema) for part in file["policies"]]
        whole = all("tree" in policy for policy in policies)
        same = not whole or _whole(file["text"]) == [policy["tree"] for policy in policies]
        files.append({"policies": policies, "same": same})
    return {"files": files}


def formatted(question: dict[str, Any]) -> dict[str, Any]:
    """Format one file until formatting it again changes nothing."""
    text = question["text"]
    try:
        for _ in range(4):
            before, text = text, cedarpy.format_policies(text, question["width"], 2)
            if before == text:
                break
    except ValueError as reason:
        return {"error": str(reason)}
    return {"text": text}


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    return formatted(question) if question["do"] == "format" else admit(question)


def _confine() -> None:
    try:
        import resource  # noqa: PLC0415 -- absent on Windows
    except ImportError:
        return
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_AS, _MEMORY),
    ):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (most if hard < 0 else min(most, hard), hard))


def main() -> None:
    """Answer the one question on a thread whose stack does not depend on the machine's."""
    _confine()
    question = json.load(sys.stdin.buffer)
    answers: list[dict[str, Any]] = []
    threading.stack_size(_STACK)
    worker = threading.Thread(target=lambda: answers.append(_answer(question)))
    worker.start()
    worker.join()
    sys.stdout.buffer.write(json.dumps(answers[0]).encode())


if __name__ == "__main__":
    main()
