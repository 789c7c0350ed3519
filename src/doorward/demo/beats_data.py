"""The story's beats on the dataset store: who reads the training data, why not, and who takes models out."""

from __future__ import annotations

import csv
import io
from typing import Any

from doorward.demo import clients, data
from doorward.demo.stage import NotHeldError, Stage, require
from doorward.demo.upstreams import Store

_ALLOWED_EXPORTS = 5


def reads_masked(stage: Stage, store: Store) -> list[str]:
    """Read as a data scientist on her managed laptop, for the data's purpose: allowed, and masked."""
    answer = _read(stage, "dana")
    arrived = answer["Body"].read().decode("utf-8")
    original = (store.home / data.BUCKET / data.CUSTOMERS).read_bytes().decode("utf-8")
    rows, truth = (list(csv.DictReader(io.StringIO(text))) for text in (arrived, original))
    require(len(rows) == len(truth) > 0, f"{len(rows)} rows arrived, {len(truth)} are stored")
    for row, true in zip(rows, truth, strict=True):
        for column in data.COLUMNS:
            same = row[column] == true[column]
            require(
                same != (column in data.MASKED),
                f"row {row['id']}: column {column} arrived as {row[column]!r}",
            )
    require(len(arrived.encode()) == len(original.encode()), "the masked file has another length")
    story = stage.decided(_request_id(answer))
    require(story["decision"] == "allow", f"the record says {story['decision']}")
    require("read-training-data" in story["determining"], f"on record it rests on {story['determining']}")
    return [",".join(rows[0]), ",".join(rows[0].values()), _why(story)]


def denied_without_device(stage: Stage) -> list[str]:
    """Try with the same key without the laptop's certificate: denied, told what would let her in."""
    said, story = _refused(stage, "dana", shows_device=False)
    require("certificate" in said or "device" in said, f"the refusal does not say what would help: {said}")
    require(story["would_allow"], "the record does not say what would have let her in")
    return [said, _why(story)]


def denied_for_another_purpose(stage: Stage) -> list[str]:
    """Try with a key for marketing: denied, and the reason names the purpose; a purpose not hers: denied."""
    said, story = _refused(stage, "dana for marketing")
    require("purpose" in said and "fraud-model" in said, f"the refusal does not name the purpose: {said}")
    require(story["purpose"] == "marketing", f"on record the purpose is {story['purpose']!r}")
    claimed, record = _refused(stage, "dana unbound", purpose="board-report")
    require(
        record.get("context", {}).get("purpose") != "board-report",
        "a purpose she was never assigned reached the context",
    )
    return [said, f"claiming the purpose board-report by header: {claimed}", _why(story)]


def denied_in_testing(stage: Stage) -> list[str]:
    """Try as a workload in testing that reads live production data: denied, though its owner may."""
    said, story = _refused(stage, "etl-test")
    require(
        "testing-never-touches-live-data" in story["determining"],
        f"on record it rests on {story['determining']}",
    )
    stage.seen["etl request"] = story["request_id"]
    answer = _read(stage, "omar")
    owner = stage.decided(_request_id(answer))
    require(owner["decision"] == "allow", f"its owner omar was {owner['decision']}")
    return [said, "omar, who owns the workload and the data, reads it: allowed", _why(story)]


def export_stops_at_the_limit(stage: Stage) -> list[str]:
    """Take one model after another with a valid key: stopped at the sixth, on record as that."""
    client = clients.s3(stage, stage.people["dana's script"])
    taken: list[str] = []
    for name in data.WEIGHTS:
        try:
            client.get_object(Bucket=data.WEIGHTS_BUCKET, Key=name)["Body"].read()
        except client.exceptions.ClientError as refused:
            story = stage.decided(_request_id(refused.response))
            require(story["code"] == "limit_exceeded", f"on record it is {story['code']!r}: {refused}")
            require(len(taken) == _ALLOWED_EXPORTS, f"it was stopped after {len(taken)}: {refused}")
            return [f"{len(taken)} models left, then: {refused}", _why(story)]
        taken.append(name)
    raise NotHeldError(f"all {len(taken)} models left")


def _read(stage: Stage, who: str, **how: Any) -> Any:
    client = clients.s3(stage, stage.people[who], **how)
    return client.get_object(Bucket=data.BUCKET, Key=data.CUSTOMERS)


def _refused(stage: Stage, who: str, **how: Any) -> tuple[str, Any]:
    """Return what boto3 printed of the refusal, and the decision on record."""
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # it ships no types

    try:
        _read(stage, who, **how)
    except ClientError as refused:
        story = stage.decided(_request_id(refused.response))
        require(refused.response["Error"]["Code"] == "AccessDenied", f"refused, but with {refused}")
        require(story["decision"] == "deny", f"refused, but the record says {story['decision']}")
        return str(refused), story
    raise NotHeldError(f"{who} was let in")


def _request_id(answer: Any) -> str | None:
    found = answer["ResponseMetadata"]["HTTPHeaders"].get("doorward-request-id")
    return None if found is None else str(found)


def _why(story: Any) -> str:
    reasons = ", ".join(story["determining"]) or "no policy permits it"
    if story["code"] not in {"allowed", "denied"}:
        reasons = story["code"]
    what = f"{story['principal']} {story['action']} {story['resource']}"
    return f"on record: {what}: {story['decision']} ({reasons})"
