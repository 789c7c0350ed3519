from __future__ import annotations

import re
from importlib.resources import files

from doorward.directory.vocabulary import CONTROLS, DEFAULTS, ENVIRONMENTS, NESTING, PACKAGED, Kind

SCHEMA = re.sub(r"//[^\n]*", "", (files("doorward.policies") / "schema.cedarschema").read_text())
TYPES = {
    Kind.BOOL: {"Bool"},
    Kind.LONG: {"Long", "Sensitivity"},
    Kind.STRING: {"String"},
    Kind.STRINGS: {"Set<String>"},
    Kind.DATETIME: {"datetime"},
    Kind.ENTITY: {"User", "Environment"},
}


def stated(kind: str) -> dict[str, tuple[str, bool]]:
    """Return attribute -> (type, required) as the schema states them."""
    match = re.search(rf"entity {kind} in \[[^\]]*\]\s*\{{(.*?)\}}", SCHEMA, re.DOTALL)
    assert match, kind
    found = re.findall(r"(\w+)(\??):\s*([\w<>]+)", match[1])
    return {name: (kind_, not optional) for name, optional, kind_ in found}


def test_the_vocabulary_is_the_packaged_schemas() -> None:
    for kind, attributes in PACKAGED.items():
        schema = stated(kind)
        assert schema.keys() == attributes.keys(), kind
        for name, attribute in attributes.items():
            assert schema[name][0] in TYPES[attribute.kind], (kind, name)
            assert attribute.entity in {"", schema[name][0]}, (kind, name)


def test_every_required_attribute_has_a_default_or_must_be_stated() -> None:
    for kind, attributes in PACKAGED.items():
        required = {name for name, (_, needed) in stated(kind).items() if needed}
        assert required == DEFAULTS[kind].keys() | {n for n, a in attributes.items() if a.required}, kind


def test_enumerations_and_nesting_are_the_schemas() -> None:
    for kind, names in (("Environment", ENVIRONMENTS), ("Control", CONTROLS)):
        match = re.search(rf"entity {kind} enum \[([^\]]*)\]", SCHEMA)
        assert match
        assert re.findall(r'"(\w+)"', match[1]) == list(names)
    for kind in ("Model", "Dataset", "Endpoint", "Tool"):
        match = re.search(rf"entity {kind} in \[([^\]]*)\]", SCHEMA)
        assert match
        assert (kind in match[1].split(", ")) == (kind in NESTING)
