"""What is served: the attributes that are kept, and no more. Any other (a password above all) is dropped."""

from typing import Annotated, Any, ClassVar, Union

from pydantic import Field
from scim2_models import (
    URN,
    AuthenticationScheme,
    Bulk,
    CaseExact,
    ChangePassword,
    ComplexAttribute,
    EnterpriseUser,
    ETag,
    Extension,
    External,
    Filter,
    Mutability,
    Patch,
    Reference,
    Required,
    Resource,
    ResourceType,
    ScimPolicy,
    ScimProvider,
    ServiceProviderConfig,
    Sort,
    Uniqueness,
)
from scim2_models import User as CoreUser
from scim2_models.resources.resource import AnyExtension

MOST_RESULTS = 1000
_MOST_OPERATIONS = 1000
_LARGEST_BULK = 1024 * 1024


class Membership(ComplexAttribute):
    """A group somebody lies in, directly or through another."""

    value: Annotated[str | None, Mutability.read_only, CaseExact.true] = None
    ref: Annotated[Reference["Group"] | None, Mutability.read_only] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    display: Annotated[str | None, Mutability.read_only] = None
    type: Annotated[str | None, Mutability.read_only] = Field(None, examples=["direct", "indirect"])


class User(Resource[AnyExtension]):
    """A person (RFC 7643, 4.1), as far as anything here depends on her."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:User")

    user_name: Annotated[str | None, Uniqueness.server, Required.true] = None
    name: CoreUser.Name | None = None  # type: ignore[valid-type]  # a class the library keeps in an attribute
    display_name: str | None = None
    title: str | None = None
    user_type: str | None = None
    active: bool | None = None
    emails: list[CoreUser.Emails] | None = None  # type: ignore[valid-type]  # as above
    groups: Annotated[list[Membership] | None, Mutability.read_only] = None

    Groups: ClassVar[type[ComplexAttribute]] = Membership


class Member(ComplexAttribute):
    """One who lies directly in a group."""

    value: Annotated[str | None, Mutability.immutable, CaseExact.true] = None
    ref: Annotated[
        Reference[Union["User", "Group", "Device"]] | None,  # type: ignore[type-arg]  # names of types
        Mutability.immutable,
    ] = Field(None, serialization_alias="$ref", validation_alias="$ref")
    type: Annotated[str | None, Mutability.immutable] = Field(None, examples=["User", "Group", "Device"])


class Group(Resource[Any]):
    """A group (RFC 7643, 4.2); groups may lie in groups."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:Group")

    display_name: Annotated[str | None, Required.true, Uniqueness.server] = None
    members: list[Member] | None = None

    Members: ClassVar[type[ComplexAttribute]] = Member


class Device(Resource[AnyExtension]):
    """A device (the device schema of the SCIM working group), with its posture as an extension."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:Device")

    display_name: Annotated[str | None, Required.true, Uniqueness.server] = None
    active: Annotated[bool | None, Required.true] = None


class Owner(ComplexAttribute):
    """The person a device belongs to."""

    value: Annotated[str | None, CaseExact.true] = None
    ref: Reference["User"] | None = Field(  # type: ignore[type-arg]  # the name of a type
        None, serialization_alias="$ref", validation_alias="$ref"
    )


class Posture(Extension):
    """What a device manager vouches for; `posture_max_age` says for how long."""

    __schema__ = URN("urn:doorward:params:scim:schemas:extension:posture:1.0:Device")

    managed: bool | None = None
    compliant: bool | None = None
    platform: str | None = None
    owner: Owner | None = None


# What stock identity providers send beside the specification, each of a kind that confuses nothing.
POLICY = ScimPolicy(
    unknown=ScimPolicy.Unknown.ignore,
    remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
)


def provider() -> ScimProvider:
    """Describe the service: its resource types, schemas and what it can do."""
    return ScimProvider(
        models=[User, EnterpriseUser, Group, Device, Posture],
        resource_types=[
            ResourceType.from_resource(User[EnterpriseUser]),
            ResourceType.from_resource(Group),
            ResourceType.from_resource(Device[Posture]),
        ],
        config=_config(),
        policy=POLICY,
    )


def _config() -> ServiceProviderConfig:
    return ServiceProviderConfig(
        patch=Patch(supported=True),
        bulk=Bulk(supported=True, max_operations=_MOST_OPERATIONS, max_payload_size=_LARGEST_BULK),
        filter=Filter(supported=True, max_results=MOST_RESULTS),
        change_password=ChangePassword(supported=False),
        sort=Sort(supported=True),
        etag=ETag(supported=True),
        authentication_schemes=[
            AuthenticationScheme(
                type=AuthenticationScheme.Type.oauthbearertoken,
                name="Service key",
                description="The key of the service that [[provisioning]] names, as a bearer token.",
                spec_uri=Reference[External]("https://www.rfc-editor.org/info/rfc6750"),
                primary=True,
            )
        ],
    )
