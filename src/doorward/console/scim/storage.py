"""The directory as the library's store: reads from the registry, writes as drafts to be carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Union

from msgspec.structs import replace
from scim2_models import (
    ForbiddenException,
    InvalidValueException,
    NotFoundException,
    PreconditionFailedException,
    Resource,
    ResourceType,
    ResponseParameters,
    SCIMException,
    ScimFilter,
    ScimProvider,
    SearchRequest,
    UniquenessException,
)
from scim2_models.path import CompareOperator, Comparison
from scim2_server.storage import ScimStorage, SearchPage

from doorward.console.scim import words
from doorward.core.errors import (
    ConflictError,
    DeniedError,
    DoorwardError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)
from doorward.core.model import EntityUid
from doorward.core.provisioning import Provisioned
from doorward.directory.draft import Draft, MovedOnError, ProvisionPlan
from doorward.directory.rules import require_group

if TYPE_CHECKING:
    from doorward.core.clock import Clock
    from doorward.core.ids import IdSource
    from doorward.directory.administration import Directory
    from doorward.directory.rules import Rules

_TRIES = 5
# Carry out one plan: judged, on record, then done.
CarryOut = Callable[[ProvisionPlan], None]
# Attributes that are looked up rather than searched for.
_NAMES = {"User": "username", "Group": "displayname", "Device": "displayname"}


class _UnavailableException(SCIMException):
    status = 503


class DirectoryStorage(ScimStorage):
    """Serve one provisioning client: it sees and changes what it provisions itself, and nothing else."""

    def __init__(  # noqa: PLR0913 -- what one client's request needs
        self,
        *,
        directory: Directory,
        provider: ScimProvider,
        rules: Rules,
        clock: Clock,
        ids: IdSource,
        carry_out: CarryOut,
    ) -> None:
        """Bind the store to one client's rules."""
        self._directory, self._provider, self._rules = directory, provider, rules
        self._clock, self._ids, self._carry_out = clock, ids, carry_out

    # Reading

    def get(
        self,
        resource_type: ResourceType,
        resource_id: str,
        *,
        response_parameters: ResponseParameters[Any] | None = None,
    ) -> Resource[Any]:
        """Return one resource; raise NotFoundException."""
        del response_parameters
        return self._resource(self._stored(resource_type, resource_id))

    def search(
        self, resource_types: list[ResourceType], search_request: SearchRequest[Any], *, position: Any = None
    ) -> SearchPage:
        """Return one page; without a filter only the page's own resources are put together."""
        del position
        kinds = [str(kind.name) for kind in resource_types]
        objects = self._candidates(kinds, search_request.filter)
        objects.sort(key=lambda one: (one.created, one.id))
        start = search_request.start_index_0 or 0
        stop = None if search_request.count is None else start + search_request.count
        if search_request.filter is None and search_request.sort_by is None:
            return SearchPage(len(objects), [self._resource(one) for one in objects[start:stop]])
        found = self._matching([self._resource(one) for one in objects], search_request)
        return SearchPage(len(found), found[start:stop])

    def _matching(
        self, resources: list[Resource[Any]], search_request: SearchRequest[Any]
    ) -> list[Resource[Any]]:
        wanted = search_request.filter
        if wanted is not None and not wanted.models and resources:
            # Bound to no model, as over several types at once: bind it to those that are there.
            models = tuple(dict.fromkeys(type(resource) for resource in resources))
            filter_type: Any = ScimFilter
            wanted = filter_type[Union[models]](str(wanted))  # noqa: UP007 -- made at run time
        found = [one for one in resources if wanted is None or wanted.match(one)]
        if search_request.sort_by is not None:
            keys = {id(one): search_request.sort_value(one) for one in found}
            descending = search_request.sort_order == SearchRequest.SortOrder.descending
            known = [one for one in found if keys[id(one)] is not None]
            known.sort(key=lambda one: keys[id(one)], reverse=descending)
            found = [*known, *(one for one in found if keys[id(one)] is None)]
        return found

    def _candidates(self, kinds: list[str], wanted: ScimFilter[Any] | None) -> list[Provisioned]:
        """Return what a filter may match: at once for the look-ups that identity providers make."""
        registry, source = self._directory.registry, self._rules.source
        node = None if wanted is None else wanted.ast
        if len(kinds) == 1 and isinstance(node, Comparison) and node.op == CompareOperator.eq:
            asked, value = str(node.attr_path).rpartition(":")[2].lower(), node.value
            if isinstance(value, str) and asked in {_NAMES[kinds[0]], "externalid"}:
                look = registry.named if asked == _NAMES[kinds[0]] else registry.by_external_id
                one = look(source, kinds[0], value)
                return [] if one is None else [one]
        return [one for kind in kinds for one in registry.of_source(source, kind)]

    # Writing

    def create(self, resource_type: ResourceType, resource: Resource[Any]) -> Resource[Any]:
        """Add a resource under an id of ours."""
        identifier = self._ids.new()

        def change(draft: Draft) -> Provisioned:
            wanted = self._wanted(str(resource_type.name), identifier, resource, before=None)
            made = draft.add(wanted, self._facts(wanted))
            self._put_members(draft, made, resource)
            return made

        return self._resource(self._change(change))

    def update(
        self, resource_type: ResourceType, resource: Resource[Any], *, expected_version: str | None = None
    ) -> Resource[Any]:
        """Replace a resource; raise PreconditionFailedException if it is no longer at that version."""

        def change(draft: Draft) -> Provisioned:
            before = self._expected(resource_type, str(resource.id), expected_version)
            wanted = self._wanted(before.kind, before.id, resource, before=before)
            made = draft.change(wanted, self._facts(wanted))
            self._put_members(draft, made, resource)
            return made

        return self._resource(self._change(change))

    def delete(
        self, resource_type: ResourceType, resource_id: str, *, expected_version: str | None = None
    ) -> None:
        """Take a resource out for good."""

        def change(draft: Draft) -> Provisioned:
            before = self._expected(resource_type, resource_id, expected_version)
            draft.remove(before)
            return before

        self._change(change)

    def _change(self, act: Callable[[Draft], Provisioned]) -> Provisioned:
        """Make, judge, record and carry out a change; again if somebody else changed something meanwhile."""
        with _translated():
            for _ in range(_TRIES):
                draft = self._directory.draft(self._rules)
                made = act(draft)
                try:
                    self._carry_out(draft.plan())
                except MovedOnError:
                    continue
                return self._directory.registry.objects.get(made.key, made)
            raise UnavailableError("the directory changes too fast", hint="Try again.")

    def _wanted(
        self, kind: str, identifier: str, resource: Resource[Any], *, before: Provisioned | None
    ) -> Provisioned:
        document, now = words.kept(resource), self._clock.now()
        name, external = words.name_of(kind, document), resource.external_id or ""
        if kind == "Group":
            require_group(self._rules, name)
        link = self._rules.link_of(name=name, external_id=external) if kind == "User" else None
        if before is None:
            return Provisioned(
                source=self._rules.source,
                kind=kind,
                id=identifier,
                uid=EntityUid.of(kind, name),
                name=name,
                created=now,
                modified=now,
                external_id=external,
                link=link,
                document=document,
            )
        fields = {"name": name, "external_id": external, "link": link, "document": document}
        return replace(before, **fields, modified=now, version=before.version + 1)

    def _facts(self, wanted: Provisioned) -> dict[str, Any]:
        owner = words.owner_id(wanted.document) if wanted.kind == "Device" else ""
        found = self._directory.registry.objects.get((self._rules.source, "User", owner)) if owner else None
        if owner and (found is None or found.gone is not None):
            raise InvalidRequestError("the owner is not a user of yours", hint="Give the id of a user.")
        return words.facts_of(wanted.kind, wanted.document, None if found is None else found.uid)

    def _put_members(self, draft: Draft, group: Provisioned, resource: Resource[Any]) -> None:
        if group.kind != "Group":
            return
        wanted = [self._member(one) for one in getattr(resource, "members", None) or ()]
        draft.members(group, frozenset(wanted))

    def _member(self, member: Any) -> EntityUid:
        identifier = member.value or str(member.ref or "").rpartition("/")[2]
        objects = self._directory.registry.objects
        for kind in ("User", "Group", "Device"):
            one = objects.get((self._rules.source, kind, identifier))
            if one is not None and one.gone is None:
                return one.uid
        raise InvalidValueException(detail="a member is not a user, group or device of yours")

    # Inside

    def _stored(self, resource_type: ResourceType, resource_id: str) -> Provisioned:
        one = self._directory.registry.objects.get((self._rules.source, str(resource_type.name), resource_id))
        if one is None or one.gone is not None:
            raise NotFoundException(detail=f"there is no {resource_type.name} with this id")
        return one

    def _expected(
        self, resource_type: ResourceType, resource_id: str, expected_version: str | None
    ) -> Provisioned:
        one = self._stored(resource_type, resource_id)
        if expected_version is not None and expected_version != f'W/"{one.version}"':
            raise PreconditionFailedException
        return one

    def _resource(self, one: Provisioned) -> Resource[Any]:
        model: Any = self._provider.model_for(one.kind)
        payload = words.payload_of(one, self._directory.registry)
        resource: Resource[Any] = model.model_validate(payload, scim_provider=self._provider)
        return resource


@contextmanager
def _translated() -> Iterator[None]:
    """Say our own errors in SCIM's words (RFC 7644, 3.12)."""
    try:
        yield
    except ConflictError as error:
        raise UniquenessException(detail=str(error)) from error
    except InvalidRequestError as error:
        raise InvalidValueException(detail=str(error)) from error
    except DeniedError as error:
        raise ForbiddenException(detail=str(error)) from error
    except NotFoundError as error:
        raise NotFoundException(detail=str(error)) from error
    except DoorwardError as error:
        raise _UnavailableException(detail=str(error)) from error
