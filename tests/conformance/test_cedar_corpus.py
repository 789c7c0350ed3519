"""Cedar's own corpus through our engine in Cedar's mode, and through the evaluation behind "visible"."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from doorward.cedar.engine import Engine, Loaded
from doorward.cedar.possible import certain
from doorward.core.decision import Effect
from doorward.core.errors import DoorwardError
from doorward.core.feed import PolicyText
from doorward.core.model import Entity, EntityUid
from doorward.core.values import entity_from_json, from_json

_CORPUS = Path(__file__).parents[3] / "shared" / "data" / "cedar-corpus" / "corpus-half.tar.gz"
pytestmark = pytest.mark.skipif(
    not _CORPUS.exists(), reason=f"the outside corpus is not here: {_CORPUS} (cedar-integration-tests)"
)


def _cases() -> Iterator[dict[str, Any]]:
    with tarfile.open(_CORPUS) as archive:
        texts = {
            Path(member.name).name: archive.extractfile(member).read()  # type: ignore[union-attr]  # files only
            for member in archive.getmembers()
            if member.isfile()
        }
    for name, content in texts.items():
        if name.endswith(".json") and not name.endswith(".entities.json"):
            case = json.loads(content)
            for part in ("policies", "entities", "schema"):
                case[part] = texts[Path(case[part]).name].decode()
            yield case


def _uid(data: dict[str, str]) -> EntityUid:
    data = data.get("__entity", data)  # type: ignore[assignment]  # either form is in the corpus
    return EntityUid(data["type"], data["id"])


def _engine(case: dict[str, Any]) -> Engine:
    found = json.loads(cedarpy.policies_to_json_str(case["policies"]))["staticPolicies"]
    policies = [PolicyText(id=name, text="", tree=tree) for name, tree in found.items()]
    return Engine(policies, case["schema"], erring_forbid_denies=False)


def _loaded(case: dict[str, Any]) -> Loaded:
    handle = cedarpy.Entities.from_json_str(case["entities"], case["schema"])
    documents = json.loads(case["entities"])
    entities = {
        _uid(document["uid"]): Entity(
            _uid(document["uid"]), parents=frozenset(map(_uid, document["parents"]))
        )
        for document in documents
    }
    return Loaded.of(handle, entities)


def test_the_corpus_is_decided_as_its_makers_say() -> None:
    requests, wrong = 0, []
    for case in _cases():
        engine, loaded = _engine(case), _loaded(case)
        for asked in case["requests"]:
            answer = engine.evaluate_record(
                _uid(asked["principal"]),
                _uid(asked["action"]),
                _uid(asked["resource"]),
                asked["context"],
                loaded=loaded,
            )
            requests += 1
            erring = sorted(error.partition(":")[0] for error in answer.errors)
            got = (answer.effect.value, sorted(answer.determining), erring)
            expected = (asked["decision"], sorted(asked["reason"]), sorted(asked["errors"]))
            if got != expected:
                wrong.append((case["policies"][:200], asked, got, answer.errors))
    assert requests > 30_000
    assert not wrong, f"{len(wrong)} of {requests}, the first: {wrong[0]}"


def _implicit(value: Any) -> bool:
    """Return whether a value may be an entity or extension that only the schema tells apart."""
    if isinstance(value, list):
        return any(map(_implicit, value))
    if isinstance(value, dict):
        return set(value) in ({"type", "id"}, {"fn", "arg"}) or any(map(_implicit, value.values()))
    return False


def _world(case: dict[str, Any]) -> Loaded | None:
    """Return the entities as our own values, or None where only the schema can read them."""
    documents = json.loads(case["entities"])
    if any(_implicit(list(d.get("attrs", {}).values())) or d.get("tags") for d in documents):
        return None
    try:
        entities = [entity_from_json(document) for document in documents]
    except (DoorwardError, ValueError, TypeError, KeyError, ArithmeticError):
        return None
    handle = cedarpy.Entities.from_json_str(case["entities"], case["schema"])
    return Loaded.of(handle, {entity.uid: entity for entity in entities})


def test_what_is_called_impossible_never_happens_in_the_corpus() -> None:
    checked, exact, wrong = 0, 0, []
    for case in _cases():
        engine, loaded = _engine(case), _world(case)
        for asked in case["requests"] if loaded is not None else ():
            principal, action, resource = (_uid(asked[n]) for n in ("principal", "action", "resource"))
            try:
                context = from_json(asked["context"])
            except (DoorwardError, ValueError, TypeError, KeyError, ArithmeticError):
                continue
            if _implicit(asked["context"]):
                continue
            answer = engine.evaluate_record(principal, action, resource, asked["context"], loaded=loaded)
            variables = {"principal": principal, "action": action, "resource": resource, "context": context}
            erring = {error.partition(":")[0] for error in answer.errors}
            for rule in engine.applicable(principal, action, resource, loaded):
                outcome = certain(rule.tree, variables, loaded)
                checked += 1
                exact += [outcome.true, outcome.false, outcome.error].count(True) == 1
                reported = rule.forbid or answer.effect is Effect.ALLOW
                if rule.id in erring:
                    good = outcome.error
                elif rule.id in answer.determining:
                    good = outcome.true
                else:
                    good = outcome.false or (not reported and outcome.true)
                if not good:
                    wrong.append((rule.tree, asked, outcome))
    assert not wrong, f"{len(wrong)} of {checked}, the first: {wrong[0]}"
    assert checked > 5_000
    assert exact > checked * 0.8  # extension types count as unknown
