"""The story's beats on models: promotion, a chat, a stream whose key is revoked."""

from __future__ import annotations

import time
from typing import Any

from doorward.demo import clients
from doorward.demo.stage import NotHeldError, Stage, require
from doorward.demo.upstreams import MODEL_NAME, REGISTERED

_STREAM_DEADLINE = 1.0
_BEFORE_REVOKING = 6
_PROMPT = "In one sentence: what is a model registry?"


def only_release_manager_deploys(stage: Stage) -> list[str]:
    """Try as a data engineer who promotes a model to production: denied; the release manager: allowed."""
    with clients.registry(stage, stage.people["eli"]) as client:
        client.update_model_version(REGISTERED, "2", description="Trained on November data.")
        said = _refused(
            lambda: client.set_registered_model_alias(REGISTERED, "production", "2"), "eli promoted it"
        )
    require("PERMISSION_DENIED" in said, f"refused, but not as MLflow does: {said}")
    denied = stage.newest(principal="eli", decision="deny", action="deploy")
    with clients.registry(stage, stage.people["rhea"]) as client:
        before = client.get_model_version_by_alias(REGISTERED, "production").version
        client.set_registered_model_alias(REGISTERED, "production", "2")
        after = client.get_model_version_by_alias(REGISTERED, "production").version
    require((str(before), str(after)) == ("1", "2"), f"production went from {before} to {after}")
    stage.newest(principal="rhea", decision="allow", action="deploy")
    return [
        f"eli describes version 2: allowed; promotes it: {said}",
        f"rhea promotes it: production is version {after} now (was {before})",
        _why(denied),
    ]


def chats_but_does_not_modify(stage: Stage) -> list[str]:
    """Chat as a business user, streamed: allowed; change a registered model: denied."""
    client = clients.llm(stage, stage.people["bea"])
    pieces: list[str] = []
    with client, _chat(client, _PROMPT, 48) as stream:
        request_id = stream.response.headers.get("doorward-request-id")
        pieces = [text for event in stream if (text := _text(event))]
    stage.seen.update(prompt=_PROMPT, answer="".join(pieces))
    require(len(pieces) >= _BEFORE_REVOKING, f"{len(pieces)} pieces of text arrived")
    story = stage.decided(request_id)
    require(story["decision"] == "allow", f"the record says {story['decision']}")
    with clients.registry(stage, stage.people["bea"]) as registry:
        said = _refused(
            lambda: registry.update_registered_model(REGISTERED, description="Mine now."),
            "bea changed the model",
        )
    require("PERMISSION_DENIED" in said, f"refused, but not as MLflow does: {said}")
    stage.newest(principal="bea", decision="deny", action="modify")
    return [
        f"in {len(pieces)} pieces: {' '.join(''.join(pieces).split())}",
        f"bea changes a model: {said}",
        _why(story),
    ]


def revoked_mid_stream(stage: Stage) -> list[str]:
    """Revoke a key while its answer streams: the stream ends within a second."""
    person = stage.people["bea on a stream"]
    client = clients.llm(stage, person)
    pieces = 0
    revoked = 0.0
    ending = "the stream ended"
    with client, _chat(client, "Count from 1 to 1000, one number a line: 1", 1500) as stream:
        request_id = str(stream.response.headers.get("doorward-request-id"))
        try:
            for event in stream:
                pieces += bool(_text(event))
                if pieces == _BEFORE_REVOKING and not revoked:
                    stage.house.revoke(person.key)
                    revoked = time.monotonic()
        except Exception as reason:  # noqa: BLE001 -- however the stock client says that its stream was cut
            ending = f"the client says: {type(reason).__name__}: {reason}"
    took = time.monotonic() - revoked
    require(revoked, f"the stream was over after {pieces} pieces, before the key could be revoked")
    require(took <= _STREAM_DEADLINE, f"the stream went on for {took:.2f} s")
    outcome = stage.ended(request_id)
    require(outcome.get("ended") == "cut", f"on record it ended as {outcome.get('ended')!r}")
    with clients.llm(stage, person) as again:
        said = _refused(lambda: _chat(again, "Hello?", 4), "the revoked key was accepted")
    return [f"{pieces} pieces, then {took * 1000:.0f} ms after the revocation {ending}", f"and again: {said}"]


def _chat(client: Any, prompt: str, most: int) -> Any:
    messages = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(
        model=MODEL_NAME, messages=messages, max_tokens=most, temperature=0, stream=True
    )


def _text(event: Any) -> str:
    return (event.choices[0].delta.content or "") if event.choices else ""


def _refused(attempt: Any, otherwise: str) -> str:
    """Return what the stock client printed of the refusal."""
    try:
        attempt()
    except Exception as reason:  # noqa: BLE001 -- each client has its own; the story shows what it prints
        return " ".join(f"{type(reason).__name__}: {reason}".split())
    raise NotHeldError(otherwise)


def _why(story: Any) -> str:
    reasons = ", ".join(story["determining"]) or "no policy permits it"
    if story["code"] not in {"allowed", "denied"}:
        reasons = story["code"]
    what = f"{story['principal']} {story['action']} {story['resource']}"
    return f"on record: {what}: {story['decision']} ({reasons})"
