from __future__ import annotations

import json

import cedarpy

from doorward.cedar.sharing import shared
from doorward.core.feed import Bundle, PolicyText
from doorward.policies.workspace import packaged_schema

TEXT = """
permit (principal, action, resource) when { resource.sensitivity == 1 && context.session.mfa };
permit (principal, action, resource) when { resource.live == true && context.session.mfa };
forbid (principal, action, resource) unless { {b: 1, a: true} == {a: true, b: 1} };
"""


def bundle(text: str) -> Bundle:
    trees = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    policies = tuple(PolicyText(id=name, text="", tree=tree) for name, tree in trees.items())
    return Bundle("sha256:test", packaged_schema(), policies[:-1], policies[-1:])


def test_a_shared_bundle_is_equal_to_the_last_byte() -> None:
    stated = bundle(TEXT)
    found = shared(stated)
    assert found == stated
    for before, after in zip(
        (*stated.policies, *stated.guardrails), (*found.policies, *found.guardrails), strict=True
    ):
        # The order of a record's fields is the order they are evaluated in; true is not 1.
        assert json.dumps(after.tree) == json.dumps(before.tree)


def test_equal_parts_are_one_object() -> None:
    first, second = shared(bundle(TEXT)).policies
    left, right = first.tree["conditions"][0]["body"]["&&"], second.tree["conditions"][0]["body"]["&&"]
    assert left["right"] is right["right"]
    assert left["left"] is not right["left"]
    assert first.tree["principal"] is second.tree["principal"]


def test_what_is_too_deep_stays_as_it_is() -> None:
    deep: dict[str, object] = {"Value": True}
    for _ in range(100_000):
        deep = {"!": {"arg": deep}}
    policy = PolicyText(id="deep", text="", tree=deep)
    found = shared(Bundle("sha256:test", packaged_schema(), (policy,)))
    assert found.policies[0].tree is deep
    while deep:  # taken apart by hand: freeing it whole would need as deep a stack
        deep = deep.pop("!", {}).pop("arg", {}) if "!" in deep else {}  # type: ignore[attr-defined] -- as built above
