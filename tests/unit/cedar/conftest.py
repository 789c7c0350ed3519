from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import cedarpy
import pytest

from doorward.cedar.admission import PolicySource, admit
from doorward.cedar.engine import Engine
from doorward.core.feed import Bundle, PolicyText
from doorward.policies.workspace import packaged_schema


@pytest.fixture(scope="session")
def schema() -> str:
    return packaged_schema()


@pytest.fixture(scope="session")
def admit_text(schema: str) -> Callable[..., Bundle]:
    def admitted(text: str, *, name: str = "a.cedar", guardrail: bool = False) -> Bundle:
        return admit([PolicySource(name, text, guardrail)], schema)

    return admitted


@pytest.fixture(scope="session")
def engine_of(schema: str) -> Callable[..., Engine]:
    """Make an engine of policies that admission would refuse, or that are too many for its process."""

    def build(text: str, **options: Any) -> Engine:
        found = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
        policies = [
            PolicyText(id=(tree.get("annotations") or {}).get("id", name), text="", tree=tree)
            for name, tree in found.items()
        ]
        return Engine(policies, schema, **options)

    return build
