from __future__ import annotations

from importlib.resources import files

from hypothesis import given
from hypothesis import strategies as st

from doorward.directory.org import parse
from doorward.directory.schema_attributes import vocabulary_of
from doorward.directory.vocabulary import PACKAGED, Attribute, Kind

SCHEMA = (files("doorward.policies") / "schema.cedarschema").read_text()


def test_the_packaged_schema_gives_the_packaged_vocabulary() -> None:
    assert vocabulary_of(SCHEMA) == PACKAGED


def test_added_attributes_may_be_stated_where_a_file_can_say_their_type() -> None:
    wider = SCHEMA.replace(
        "entity User in [Role, Group, Project] {",
        """entity Site;
        @doc("a } and a // in text")
        entity User in [Role, Group, Project] {
          badge?: Long, level: Sensitivity, "site": Doorward::Site, boss?: User,  // not: fake: Bool
          notes: Set<String>, address: { street: String, no: Long }, ranges: Set<ipaddr>,""",
    )
    user = vocabulary_of(wider)["User"]
    assert set(user) - set(PACKAGED["User"]) == {"badge", "level", "site", "boss", "notes"}
    assert (user["badge"].kind, user["level"].kind) == (Kind.LONG, Kind.LONG)
    assert user["site"] == Attribute(Kind.ENTITY, entity="Site")
    stated = parse("users: { dana: { badge: 7, notes: [a] } }", "org.yaml", vocabulary=vocabulary_of(wider))
    assert stated.entities[0].attrs == {"badge": 7, "notes": frozenset({"a"})}


def test_an_attribute_the_schema_left_out_may_not_be_stated() -> None:
    narrower = SCHEMA.replace("department?: String,", "")
    assert "department" not in vocabulary_of(narrower)["User"]


@given(
    st.lists(
        st.sampled_from(["entity", "User", "{", "}", ":", ",", ";", "in", "[", "]", "Long", "type", "="])
    )
)
def test_any_text_gives_some_vocabulary(tokens: list[str]) -> None:
    assert set(vocabulary_of(" ".join(tokens))) == set(PACKAGED)
