from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.core.errors import InvalidConfigError
from doorward.core.model import EntityUid
from doorward.directory.org import offline_snapshot, parse, undeclared
from doorward.directory.vocabulary import PACKAGED, Attribute, Kind

uid = EntityUid.of
STORY = """
users:
  dana: { roles: [data-scientist], groups: [fraud-team], projects: [fraud], purposes: [fraud-model],
          department: risk, employment: employee, clearance: 2, email: dana@example.com,
          identities: [{ issuer: "https://idp.example", subject: "00u1" }] }
  omar: { roles: [asset-owner], trained_until: 2027-01-31 }
services:
  etl-test: { owner: dana, environment: testing, roles: [ingestion] }
agents:
  scout: { owner: dana, environment: production, projects: [fraud] }
devices:
  laptop-7: { managed: true, compliant: true, owner: dana, certificate: "sha256:%s" }
zones: { office: [10.0.0.0/8], lab: [192.168.7.0/24] }
groups: { fraud-team: { groups: [house] } }
projects: { fraud: { purposes: [scoring] } }
assets:
  Dataset::"store/training": { owner: omar, sensitivity: 2, environment: production, live: true,
                               purposes: [fraud-model], projects: [fraud], tags: { pii: "yes" } }
  Model::"registry/fraud-detector": { owner: omar, sensitivity: 2, projects: [fraud] }
""" % ("AB" * 32)


def test_the_story_becomes_what_it_says() -> None:
    known = offline_snapshot(parse(STORY, "org.yaml"))
    dana = uid("User", "dana")
    assert known.purposes_of(dana) == {"fraud-model", "scoring"}
    assert known.is_active(dana)
    assert known.principal_of("https://idp.example", "00u1") == dana
    assert known.zone_of("192.168.7.9") == "lab"
    assert known.device_of_certificate("ab" * 32, datetime(2026, 1, 1, tzinfo=UTC)) == uid(
        "Device", "laptop-7"
    )
    assert uid("Group", "house") in known.closure([dana])
    etl = known.entity(uid("Service", "etl-test"))
    assert etl is not None
    assert (etl.attrs["environment"], etl.attrs["owner"]) == (uid("Environment", "testing"), dana)
    data = known.resolve(uid("Dataset", "store/training/customers.csv"))
    assert data is not None
    assert (data.tags, data.attrs["purposes"]) == ({"pii": "yes"}, frozenset({"fraud-model"}))
    omar = known.entity(uid("User", "omar"))
    assert omar is not None
    assert omar.attrs["trained_until"] == datetime(2027, 1, 31, tzinfo=UTC)


TWO_CLAIMS = """users:
  a: { identities: [{ issuer: i, subject: s }] }
  b: { identities: [{ issuer: i, subject: s }] }
"""
MISTAKES = [
    ("users:\n  dana: { clearence: 2 }", 2, "`clearence`", "`clearance`"),
    ("usrs: {}", 1, "`usrs`", "`users`"),
    ("users:\n  dana: {}\n  dana: {}", 3, "twice", "org.yaml:2"),
    ('users:\n  dana: {}\n  User::"dana": {}', 3, "declared twice", "org.yaml:2"),
    ("users: { dana: { clearance: 4 } }", 1, "between 0 and 3", ""),
    ("users: { dana: { clearance: 010 } }", 1, "whole number", ""),
    ("users: { dana: { clearance: 1.0 } }", 1, "whole number", ""),
    ('users: { dana: { clearance: "2" } }', 1, "whole number", ""),
    ("users: { dana: { risk: 101 } }", 1, "between 0 and 100", ""),
    ("users: { dana: { active: yes } }", 1, "true or false", ""),
    ("users: { dana: { department: 7 } }", 1, "must be text", "Quote it"),
    ("users: { dana: { department: no } }", 1, "must be text", "Quote it"),
    ("users: { dana: { purposes: fraud } }", 1, "must be a list", "[one, two]"),
    ("users: { dana: { roles: [[a]] } }", 1, "must be a name", ""),
    ("users: { dana: { roles: [~] } }", 1, "must be a name", ""),
    ("users: { dana: { trained_until: soon } }", 1, "date or time", "2027-01-31"),
    ("users: { dana: { trained_until: 2027-01-31T10:00:00 } }", 1, "time zone", "Z"),
    ("users: [dana]", 1, "must be a mapping", ""),
    ("users: { dana: { identities: [{ issuer: a }] } }", 1, "issuer` and `subject", ""),
    ("users: { dana: { identities: [{ isuer: a, subject: b }] } }", 1, "`isuer`", "`issuer`"),
    (
        TWO_CLAIMS,
        3,
        "already linked",
        "",
    ),
    ("services:\n  a: { owner: dan }\nusers: { dana: {} }", 2, 'User::"dan"', "`dana`"),
    ("services: { a: { owner: 'Device::\"x\"' } }", 1, "not a User", ""),
    ("agents: { a: { environment: testing } }", 1, "needs `owner`", ""),
    ("services: { a: { environment: prodution } }", 1, "no environment", "`production`"),
    ("devices: { d: { certificate: abc } }", 1, "64 hex digits", ""),
    ("devices: { d: { owner: ghost } }", 1, "not known", ""),
    ("groups: { a: { groups: [b] }, b: { groups: [c] }, c: { groups: [a] } }", 1, "lies in itself", ""),
    ("groups: { a: { groups: [a] } }", 1, "lies in itself", ""),
    ("groups: { a: { roles: [x] } }", 1, "`roles`", "groups"),
    ("projects: { a: { purpose: [x] } }", 1, "`purpose`", "`purposes`"),
    ("zones: { a: [10.0.0.1/8] }", 1, "host bits", ""),
    ("zones: { a: [10.0.0.0/8], b: [10.0.0.0/8] }", 1, "zone `a`", ""),
    ("zones: { unknown: [10.0.0.0/8] }", 1, "cannot be called", ""),
    ("assets: { store/x: {} }", 1, "not an entity name", "Dataset::"),
    ("assets: { 'Datset::\"store/x\"': {} }", 1, "not one of", "`Dataset`"),
    ("assets: { 'User::\"dana\"': {} }", 1, "not one of", ""),
    ("assets: { 'Dataset::\"store/../x\"': {} }", 1, "segment", ""),
    ("assets: { 'Dataset::\"store//x\"': {} }", 1, "segment", ""),
    ("assets: { 'Dataset::\"/store\"': {} }", 1, "segment", ""),
    ("assets: { 'Dataset::\"store/x\"': { sensitivity: high } }", 1, "whole number", ""),
    ("assets: { 'Model::\"store/x\"': { live: true } }", 1, "`live`", ""),
    ("assets: { 'Model::\"store/x\"': { roles: [a] } }", 1, "`roles`", ""),
    ("users:\n  - [", 2, "", ""),
    ("a: 1\n---\nb: 2", 2, "another document", ""),
    ("? [a]\n: b", 1, "must be a name", ""),
    ("users: { ? : {} }", 1, "must be a name", ""),
    ("users: { <<: { a: {} } }", 1, "`a`", ""),
    ("users: &a {}\nservices: *a", 1, "aliases", "Write the value out"),
    ("users: !!python/object:os.system {}", 1, "tags", ""),
    ("\x00", 1, "", ""),
    ("[" * 100_000, 1, "nested deeper", ""),
    ("{a: " * 5000, 1, "nested deeper", ""),
]


@pytest.mark.parametrize(("text", "line", "message", "hint"), MISTAKES)
def test_a_mistake_names_its_line_and_the_nearest_right_word(
    text: str, line: int, message: str, hint: str
) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        offline_snapshot(parse(text, "org.yaml"))
    assert caught.value.message.startswith(f"org.yaml:{line}: ")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_file_over_its_bound_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidConfigError, match="larger than 16 MB"):
        parse("#" * (16 * 1024 * 1024 + 1), "org.yaml")


@pytest.mark.parametrize("text", ["", "users:", "users: {}", "users: { dana: }", "# nothing"])
def test_nothing_stated_is_nothing_known_and_no_mistake(text: str) -> None:
    assert {e.uid for e in parse(text, "org.yaml").entities} <= {uid("User", "dana")}


def test_names_that_yaml_would_turn_into_booleans_or_numbers_stay_names() -> None:
    stated = parse("users: { no: { roles: [on, 007] }, 12: {} }", "org.yaml")
    assert {e.uid.id for e in stated.entities} == {"no", "12"}
    assert stated.implied == {uid("Role", "on"), uid("Role", "007")}


def test_attributes_of_a_custom_schema_are_read_if_it_has_them() -> None:
    text = "users: { dana: { badge: 7 } }"
    with pytest.raises(InvalidConfigError, match="`badge`"):
        parse(text, "org.yaml")
    wider = {**PACKAGED, "User": {**PACKAGED["User"], "badge": Attribute(Kind.LONG)}}
    assert parse(text, "org.yaml", vocabulary=wider).entities[0].attrs == {"badge": 7}


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    try:
        parse(text, "org.yaml")
    except InvalidConfigError as error:
        refused = error.message
    else:
        refused = "org.yaml:"
    assert refused.startswith("org.yaml:")


YAMLISH = st.recursive(
    st.sampled_from(["dana", "1", "true", "~", '"x"', "2026-01-01", "fraud"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda xs: "[" + ", ".join(xs) + "]")
        | st.dictionaries(
            st.sampled_from(["owner", "roles", "tags", "purposes", "identities"]), inner, max_size=3
        ).map(lambda d: "{" + ", ".join(f"{k}: {v}" for k, v in d.items()) + "}")
    ),
    max_leaves=8,
)


@given(st.sampled_from(["users", "services", "devices", "zones", "groups", "projects"]), YAMLISH)
def test_any_structure_is_read_or_refused_with_a_line(section: str, value: str) -> None:
    try:
        offline_snapshot(parse(f"{section}: {{ one: {value} }}", "org.yaml"))
    except InvalidConfigError as error:
        refused = error.message
    else:
        refused = "org.yaml:1: "
    assert refused.startswith("org.yaml:1: ")


INTERFACE_EXAMPLE = """
users:
  dana: { roles: [data-scientist], groups: [fraud-team], projects: [fraud], purposes: [fraud-model],
          department: risk, employment: employee, clearance: 2, email: dana@example.com,
          identities: [{ issuer: "https://idp.example", subject: "00u1" }] }
services:
  etl-test: { owner: dana, environment: testing, roles: [ingestion] }
agents:
  scout: { owner: dana, environment: production, projects: [fraud] }
devices:
  laptop-7: { managed: true, compliant: true, owner: dana }
zones: { office: [10.0.0.0/8], lab: [192.168.7.0/24] }
assets:
  Dataset::"store/training": { owner: omar, sensitivity: 2, environment: production, live: true,
                               purposes: [fraud-model], projects: [fraud] }
  Model::"registry/fraud-detector": { owner: omar, sensitivity: 2, environment: production,
                                      projects: [fraud] }
"""


def test_an_asset_may_name_an_owner_who_is_declared_later_and_the_plan_says_so() -> None:
    org = parse(INTERFACE_EXAMPLE, "org.yaml")
    assert offline_snapshot(org).entity(EntityUid.of("Dataset", "store/training")) is not None
    said = undeclared(org, {entity.uid for entity in org.entities})
    assert len(said) == 2
    assert said[0].startswith('org.yaml:14: `owner` of Dataset::"store/training" is User::"omar"')


@pytest.mark.parametrize("name", ["Ann O'Neil", 'the "quoted"', "ünï code", "a::b", 'Ann "x'])
def test_a_persons_name_may_hold_spaces_quotes_and_any_letter(name: str) -> None:
    known = offline_snapshot(parse(json.dumps({"users": {name: {"clearance": 1}}}), "org.yaml"))
    assert known.entity(uid("User", name)) is not None


def test_a_name_written_in_full_keeps_its_kind() -> None:
    known = offline_snapshot(parse("""users: { 'Doorward::User::"dana"': {} }""", "org.yaml"))
    assert known.entity(uid("User", "dana")) is not None
