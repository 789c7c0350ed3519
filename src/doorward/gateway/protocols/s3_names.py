"""Name buckets and keys as assets: the longest declared name that covers a key decides what it is."""

from __future__ import annotations

import msgspec

from doorward.core.model import Action, EntityUid
from doorward.gateway.adapter import Ask, Catalogue
from doorward.gateway.prefixes import Place
from doorward.gateway.protocols.s3_route import LISTING, WRITING, S3Call
from doorward.settings import UpstreamSettings

_KINDS = ("Model", "Dataset")


class Names(msgspec.Struct, frozen=True):
    """Name what lies in one upstream, on one snapshot."""

    settings: UpstreamSettings
    catalogue: Catalogue

    def of(self, bucket: str, key: str = "") -> EntityUid:
        """Return the asset of an object, a prefix (up to its last slash) or a bucket."""
        inner = f"{bucket}/{key}".strip("/")
        name = f"{self.settings.name}/{inner}"
        covering = self.catalogue.covering(name, _KINDS)
        declared = "" if covering is None else covering.id
        kind = "Dataset" if covering is None else covering.kind
        longest = max((p for p in self.weights if (name + "/").startswith(p + "/")), key=len, default="")
        return EntityUid.of("Model" if len(longest) > len(declared) else kind, name)

    @property
    def weights(self) -> tuple[str, ...]:
        """Return the names under which objects are models, whatever is declared above them."""
        return tuple(f"{self.settings.name}/{p.strip('/')}" for p in self.settings.weights_prefixes)

    def place(self, bucket: str) -> Place:
        """Return a bucket as a place of names."""
        whole = f"{self.settings.name}/{bucket}"
        return Place(whole, lambda name: self.of(bucket, name[len(whole) + 1 :]), self.weights)

    def under(self, bucket: str, prefix: str) -> EntityUid:
        """Return the asset that a listing of `prefix` looks into: its whole segments."""
        return self.of(bucket, prefix.rpartition("/")[0])


class S3Detail(msgspec.Struct, frozen=True, kw_only=True):
    """Keep between `name` and `forward` what an operation is about."""

    call: S3Call
    names: Names
    target: EntityUid | None = None
    keys: tuple[str, ...] = ()
    body: bytes = b""


def reading(uid: EntityUid) -> Action:
    """Return the action of taking an object's bytes."""
    return Action.EXPORT if uid.kind == "Model" else Action.READ


def asks_of(call: S3Call, names: Names, keys: tuple[str, ...]) -> tuple[Ask, ...]:
    """Return what an operation does to which asset; an empty tuple only where a list is filtered by name."""
    if call.operation == "DeleteObjects":
        return tuple(Ask(Action.DELETE, names.of(call.bucket, key)) for key in keys)
    if call.operation in LISTING:
        looked_into = names.under(call.bucket, call.query.get("prefix", ""))
        return (Ask(Action.VIEW, looked_into),) if call.bucket else ()
    target = names.of(call.bucket, call.key)
    match call.operation:
        case operation if operation in WRITING:
            source = () if call.source is None else (names.of(*call.source),)
            return (*(Ask(reading(uid), uid) for uid in source), Ask(Action.CREATE, target))
        case "GetObject":
            action = reading(target)
        case "DeleteObject":
            action = Action.DELETE
        case _:
            # HeadObject, HeadBucket, GetBucketLocation: they look.
            action = Action.VIEW
    return (Ask(action, target),)
