"""Run an outside corpus of Cedar cases through both tiers, and its policies through the validator.

The format is that of cedar-integration-tests: one JSON document a case names a policy file, an entities
file and a schema, says whether the policies validate, and lists requests with their answers.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cedarpy
import msgspec

from doorward.cedar import types
from doorward.cedar.data import text_of
from doorward.cedar.engine import Engine, Loaded
from doorward.cedar.schema import Schema
from doorward.cedar.world import Node, ancestors, rule_of
from doorward.core.errors import InvalidRequestError
from doorward.core.feed import PolicyText
from doorward.core.model import EntityUid

_NONE: frozenset[EntityUid] = frozenset()
_PARTS = ("policies", "entities", "schema")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One case, its files read; `requests` are as the corpus writes them."""

    name: str
    policies: str
    entities: str
    schema: str
    should_validate: bool
    requests: tuple[dict[str, Any], ...]


class Verdict(msgspec.Struct, frozen=True):
    """How one thing went; `wrong` says what was expected and what came, empty when they agree."""

    part: str
    case: str
    wrong: str = ""


TIERS: Mapping[str, int | None] = {"tier 0": None, "tier 1": 0}
VALIDATION = "validation"


def cases(path: Path) -> Iterator[Case]:
    """Yield the cases of a folder or a tar archive; raise InvalidRequestError for what is neither."""
    texts = dict(_files(path))
    found = 0
    for name, content in texts.items():
        document = _document(name, content)
        if document is None:
            continue
        parts = {part: texts.get(Path(document[part]).name) for part in _PARTS}
        if None in parts.values():
            raise InvalidRequestError(f"{name} names a file that is not there")
        found += 1
        yield Case(
            name=name,
            should_validate=bool(document["shouldValidate"]),
            requests=tuple(document["requests"]),
            **{part: (text or b"").decode() for part, text in parts.items()},
        )
    if not found:
        raise InvalidRequestError(
            f"{path} holds no cases", hint="Name a corpus of Cedar's integration tests."
        )


def _document(name: str, content: bytes) -> dict[str, Any] | None:
    if not name.endswith(".json") or name.endswith(".entities.json"):
        return None
    document = json.loads(content)
    known = isinstance(document, dict) and document.keys() >= {*_PARTS, "requests", "shouldValidate"}
    return document if known else None


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file.name, file.read_bytes()
        return
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield Path(member.name).name, content.read()
    except (OSError, tarfile.TarError) as reason:
        raise InvalidRequestError(f"{path} is no folder and no archive: {reason}") from reason


def run(case: Case) -> Iterator[Verdict]:
    """Yield a verdict for the validation and, in each tier, for every request."""
    yield _validation(case)
    policies = [PolicyText(id=name, text="", tree=tree) for name, tree in trees(case.policies).items()]
    for tier, hot in TIERS.items():
        engine = Engine(policies, case.schema, erring_forbid_denies=False, hot=hot, beside=False)
        loaded = world(engine, json.loads(case.entities))
        for number, asked in enumerate(case.requests):
            # The first answer of a slice is tier 0's; what is judged is the second.
            for _ in range(1 if hot is None else 2):
                wrong = _difference(engine, loaded, asked)
            yield Verdict(tier, f"{case.name} request {number}", wrong)


def trees(text: str) -> dict[str, dict[str, Any]]:
    """Return the static policies of a trusted text by the parser's own names."""
    found: dict[str, dict[str, Any]] = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    return found


def _validation(case: Case) -> Verdict:
    passed = cedarpy.validate_policies(case.policies, case.schema).validation_passed
    said = "" if passed is case.should_validate else f"expected {case.should_validate}, got {passed}"
    return Verdict(VALIDATION, case.name, said)


def _difference(engine: Engine, loaded: Loaded, asked: Mapping[str, Any]) -> str:
    principal, action, resource = (_uid(asked[name]) for name in ("principal", "action", "resource"))
    answer = engine.evaluate_record(principal, action, resource, asked["context"], loaded=loaded)
    erring = sorted(error.partition(":")[0] for error in answer.errors)
    got = (answer.effect.value, sorted(answer.determining), erring)
    expected = (asked["decision"], sorted(asked["reason"]), sorted(asked["errors"]))
    return "" if got == expected else f"expected {expected}, got {got} ({'; '.join(answer.errors)})"


def _uid(data: Mapping[str, Any]) -> EntityUid:
    data = data.get("__entity", data)
    return EntityUid(data["type"], data["id"])


def world(engine: Engine, documents: list[dict[str, Any]]) -> Loaded:
    """Load entities from Cedar JSON, whose short forms only the schema can read."""
    schema = engine.schema
    parents = {_uid(d["uid"]): frozenset(map(_uid, d.get("parents", ()))) for d in documents}
    loaded = engine.world(lambda _uid: None, len(documents) * 2 + 64)
    for document in documents:
        uid = _uid(document["uid"])
        if uid not in schema.actions:
            loaded.put(_node(uid, document, ancestors(uid, lambda one: parents.get(one, _NONE)), schema))
    return loaded


def _node(uid: EntityUid, document: Mapping[str, Any], above: frozenset[EntityUid], schema: Schema) -> Node:
    rule = rule_of(uid, above, schema)
    tags = document.get("tags", {})
    if tags and rule.tags is None:
        raise InvalidRequestError(f"{uid} has tags the schema lacks")
    return Node(
        uid,
        types.read(document.get("attrs", {}), rule.attrs, str(uid)),
        {text_of(n): types.read(v, rule.tags, str(uid)) for n, v in tags.items()} if rule.tags else {},
        above,
    )
