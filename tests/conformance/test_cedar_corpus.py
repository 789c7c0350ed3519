"""Cedar's own corpus through both tiers of our engine, and through the evaluation behind "visible"."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from doorward.cedar import corpus
from doorward.cedar.engine import Engine, Loaded
from doorward.cedar.possible import certain
from doorward.core.decision import Effect
from doorward.core.errors import DoorwardError
from doorward.core.feed import PolicyText
from doorward.core.model import EntityUid
from doorward.core.values import entity_from_json, from_json

_CORPUS = Path(__file__).parents[3] / "shared" / "data" / "cedar-corpus" / "corpus-half.tar.gz"
needs_corpus = pytest.mark.skipif(
    not _CORPUS.exists(), reason=f"the outside corpus is not here: {_CORPUS} (cedar-integration-tests)"
)


@needs_corpus
@pytest.mark.timeout(300)
def test_the_corpus_is_decided_and_validated_as_its_makers_say() -> None:
    passed: Counter[str] = Counter()
    wrong = []
    for case in corpus.cases(_CORPUS):
        for verdict in corpus.run(case):
            if verdict.wrong:
                wrong.append(verdict)
            else:
                passed[verdict.part] += 1
    assert not wrong, f"{len(wrong)}, the first: {wrong[0]}"
    assert passed["tier 0"] == passed["tier 1"] > 30_000
    assert passed["validation"] > 4_000


_CASE: dict[str, Any] = {
    "policies": "x/a.cedar",
    "entities": "x/a.entities.json",
    "schema": "x/a.cedarschema",
    "shouldValidate": True,
    "requests": [
        {
            "description": "one",
            "principal": {"type": "U", "id": "a"},
            "action": {"type": "Action", "id": "go"},
            "resource": {"type": "U", "id": "b"},
            "context": {},
            "validateRequest": True,
            "decision": "allow",
            "reason": ["policy0"],
            "errors": [],
        }
    ],
}


def _folder(tmp_path: Path, **changed: Any) -> Path:
    (tmp_path / "a.cedar").write_text("permit (principal, action, resource) when { principal.n == 1 };")
    (tmp_path / "a.cedarschema").write_text(
        "entity U { n: Long }; action go appliesTo { principal: [U], resource: [U] };"
    )
    (tmp_path / "a.entities.json").write_text(
        json.dumps([{"uid": {"type": "U", "id": "a"}, "attrs": {"n": 1}, "parents": []}])
    )
    (tmp_path / "a.json").write_text(json.dumps({**_CASE, **changed}))
    return tmp_path


def _wrong(path: Path) -> list[str]:
    return [v.part for case in corpus.cases(path) for v in corpus.run(case) if v.wrong]


def test_a_case_that_agrees_passes_and_every_kind_of_disagreement_is_told(tmp_path: Path) -> None:
    assert _wrong(_folder(tmp_path)) == []
    assert _wrong(_folder(tmp_path, shouldValidate=False)) == ["validation"]
    for key, value in (("decision", "deny"), ("reason", []), ("errors", ["policy0"])):
        requests = [{**_CASE["requests"][0], key: value}]
        assert _wrong(_folder(tmp_path, requests=requests)) == ["tier 0", "tier 1"]


def test_what_holds_no_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DoorwardError):
        list(corpus.cases(tmp_path))
    with pytest.raises(DoorwardError):
        list(corpus.cases(tmp_path / "nothing.tar.gz"))


def _implicit(value: Any) -> bool:
    """Return whether a value may be an entity or extension that only the schema tells apart."""
    if isinstance(value, list):
        return any(map(_implicit, value))
    if isinstance(value, dict):
        return set(value) in ({"type", "id"}, {"fn", "arg"}) or any(map(_implicit, value.values()))
    return False


def _world(case: corpus.Case, engine: Engine) -> Loaded | None:
    """Return the entities as our own values, or None where only the schema can read them."""
    documents = json.loads(case.entities)
    if any(_implicit(list(d.get("attrs", {}).values())) or d.get("tags") for d in documents):
        return None
    try:
        entities = [entity_from_json(document) for document in documents]
        return engine.load({e.uid: e for e in entities if e.uid not in engine.schema.actions})
    except (DoorwardError, ValueError, TypeError, KeyError, ArithmeticError):
        return None


@needs_corpus
@pytest.mark.timeout(300)
def test_what_is_called_impossible_never_happens_in_the_corpus() -> None:
    checked, exact, wrong = 0, 0, []
    for case in corpus.cases(_CORPUS):
        policies = [PolicyText(id=name, text="", tree=t) for name, t in corpus.trees(case.policies).items()]
        engine = Engine(policies, case.schema, erring_forbid_denies=False)
        loaded = _world(case, engine)
        for asked in case.requests if loaded is not None else ():
            assert loaded is not None
            principal, action, resource = (
                EntityUid(asked[n]["type"], asked[n]["id"]) for n in ("principal", "action", "resource")
            )
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
