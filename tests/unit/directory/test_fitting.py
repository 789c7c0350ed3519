# ruff: noqa: E501 -- cases stand on one line each, as in a table
"""What is written fits the schema, and a schema that what is known does not fit cannot rule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from doorward.core.clock import SystemClock
from doorward.core.errors import InvalidConfigError, InvalidPolicyError, InvalidRequestError
from doorward.core.feed import Delta, Known
from doorward.core.ids import IdSource
from doorward.core.model import Entity, EntityUid
from doorward.core.values import entity_to_json
from doorward.directory.administration import Directory
from doorward.directory.fitting import Fitting
from doorward.directory.org import parse
from doorward.directory.schema_attributes import vocabulary_of
from doorward.directory.snapshot import Snapshot
from doorward.policies.workspace import packaged_schema
from doorward.store.opened import Store

OWN = """
namespace Shop {
  entity Region;
  entity Branch in [Region] { city: String, floors: Long, open?: Bool, words: Set<String>, boss?: Doorward::User };
}
"""
SCHEMA = packaged_schema() + OWN


@pytest.fixture
def directory() -> Iterator[Directory]:
    clock = SystemClock()
    store = Store.open("sqlite://", Path())
    made = Directory(store, clock, IdSource(clock))
    made.conform(SCHEMA)
    yield made
    store.close()


def apply(directory: Directory, entities: str) -> None:
    stated = parse(f"entities:\n{entities}", "org.yaml", vocabulary=vocabulary_of(SCHEMA))
    directory.apply(stated)


GOOD = """  Shop::Branch::"a": { city: Ulm, floors: 2, words: [x], parents: ['Shop::Region::"s"'] }\n"""


def test_what_fits_is_written(directory: Directory) -> None:
    apply(directory, GOOD)
    assert EntityUid("Shop::Branch", "a") in directory.snapshot.stated


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        ("{ city: Ulm, floors: two, words: [] }", "floors is 'two', not a Long", ""),
        ("{ city: 3, floors: 2, words: [] }", "city is 3, not a String", ""),
        ("{ city: Ulm, flors: 2, floors: 2, words: [] }", "an attribute `flors` the schema lacks", "Did you mean `floors`?"),
        ("{ city: Ulm, words: [] }", "lacks the attribute `floors`", "State `floors`."),
        ("""{ city: Ulm, floors: 2, words: [], parents: ['User::"dana"'] }""", 'User::"dana" cannot lie above', "only these can"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_line_and_the_nearest_right_name(
    directory: Directory, line: str, said: str, hint: str
) -> None:
    before = directory.snapshot.version
    with pytest.raises(InvalidConfigError) as refused:
        apply(directory, f'{GOOD}  Shop::Branch::"b": {line}\n')
    assert refused.value.message.startswith("org.yaml:3")
    assert 'Shop::Branch::"b"' in refused.value.message
    assert said in refused.value.message
    assert hint in refused.value.hint
    assert directory.snapshot.version == before


def test_a_type_the_schema_lacks_is_refused_with_the_nearest(directory: Directory) -> None:
    with pytest.raises(InvalidConfigError) as refused:
        apply(directory, '  Shop::Brunch::"b": {}\n')
    assert "has a type the schema lacks" in refused.value.message
    assert "Shop::Branch" in refused.value.hint


def test_every_writer_is_held_to_it(directory: Directory) -> None:
    """Not only files: whatever states an entity goes through the one place where changes are kept."""
    wrong = Entity(EntityUid.of("User", "dana"), {"clearance": "high"})
    delta = Delta(version=directory.snapshot.version + 1, entities=(entity_to_json(wrong),))
    with pytest.raises(InvalidRequestError, match=r'User::"dana".clearance is .high., not a Long'):
        directory._commit(delta, "test")  # noqa: SLF001 -- the one place all writers share
    assert wrong.uid not in directory.snapshot.stated


def test_a_circle_of_own_types_is_refused(directory: Directory) -> None:
    regions = packaged_schema() + "namespace Shop { entity Region in [Region]; }"
    directory.conform(regions)
    ring = """  Shop::Region::"a": { parents: ['Shop::Region::"b"'] }\n  Shop::Region::"b": { parents: ['Shop::Region::"a"'] }\n"""
    with pytest.raises(InvalidConfigError, match="lies above itself"):
        directory.apply(parse(f"entities:\n{ring}", "org.yaml", vocabulary=vocabulary_of(regions)))


def test_a_schema_that_what_is_known_breaks_is_refused_and_the_old_one_rules_on(directory: Directory) -> None:
    apply(directory, GOOD)
    with pytest.raises(InvalidPolicyError) as refused:
        directory.conform(SCHEMA.replace("floors: Long", "floors: String"))
    assert 'Shop::Branch::"a".floors is 2, not a String' in refused.value.message
    assert directory.schema == SCHEMA
    apply(directory, '  Shop::Branch::"c": { city: Bonn, floors: 1, words: [] }\n')
    with pytest.raises(InvalidPolicyError, match="lacks the attribute `street`"):
        directory.conform(SCHEMA.replace("floors: Long", "floors: Long, street: String"))
    directory.conform(SCHEMA.replace("floors: Long", "floors: Long, street?: String"))


def test_many_misfits_are_counted_and_the_first_are_named() -> None:
    users = tuple(Entity(EntityUid.of("User", f"u{n}"), {"clearance": "x"}) for n in range(9))
    snapshot = Snapshot.of(Known(version=1, entities=tuple(map(entity_to_json, users))))
    with pytest.raises(InvalidPolicyError) as refused:
        Fitting(packaged_schema()).require_all(snapshot)
    assert refused.value.message.startswith("9 of the people and assets do not fit")
    assert refused.value.message.count("not a Long") == 5
    assert refused.value.message.endswith("and 4 more")


def test_an_unreadable_schema_is_refused(directory: Directory) -> None:
    with pytest.raises(InvalidPolicyError, match="cannot be read"):
        directory.conform("entity A in [B];")
    assert directory.schema == SCHEMA
