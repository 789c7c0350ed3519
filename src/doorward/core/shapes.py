"""What a schema says of one type of resources, as far as those who query other systems for them need it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Form(StrEnum):
    """Name the forms of an attribute; records, decimals, durations and addresses are `OTHER`."""

    BOOL = "true or false"
    LONG = "a whole number"
    TEXT = "text"
    MOMENT = "a moment"
    ENTITY = "a name"
    SET = "a set"
    OTHER = "something else"


class Shape(msgspec.Struct, frozen=True):
    """Describe one attribute; of a name `entity` is the full type, `names` are all there are, if closed."""

    form: Form
    required: bool = True
    entity: str = ""
    names: frozenset[str] | None = None
    element: Shape | None = None


class ResourceShape(msgspec.Struct, frozen=True):
    """Describe the resources of one type.

    `above` are the full types that may lie above one, each with all names there are, if closed.
    """

    type: str
    attributes: Mapping[str, Shape]
    above: Mapping[str, frozenset[str] | None] = msgspec.field(default_factory=dict)
    tags: bool = False

    @property
    def required(self) -> frozenset[str]:
        """Return the attributes that every resource has."""
        return frozenset(name for name, shape in self.attributes.items() if shape.required)
