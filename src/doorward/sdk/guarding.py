"""`@guard`: a function that runs only if its caller may do what it does."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from doorward.core.errors import DeniedError, InvalidConfigError
from doorward.core.model import EntityUid
from doorward.sdk.asking import Asker, Name, require, within

P = ParamSpec("P")
R = TypeVar("R")
Source = str | Callable[[Mapping[str, Any]], Name]


def guard(  # noqa: PLR0913 -- one question, in words
    point: Asker,
    *,
    action: str,
    resource: Source,
    principal: Source = "{principal}",
    context: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    keeps: Collection[str] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decide before each call; raise DeniedError instead of calling when the answer is no.

    `resource` and `principal` are names with arguments in braces (`Model::"llm/{name}"`; what is put
    in cannot end the quotes), `{argument}` alone for one that is a name itself, or a function of the
    arguments. `keeps` names the obligations this function fulfils; any other makes the answer no.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        for source in (resource, principal):
            _require_arguments(source, signature)

        def question(args: Any, kwargs: Any) -> tuple[tuple[Name, str, Name], Mapping[str, Any]]:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            asked = (name_of(principal, given), action, name_of(resource, given))
            return asked, context(given) if context is not None else {}

        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                asked, circumstances = question(args, kwargs)
                require(within(await point.acan(*asked, context=circumstances), keeps))
                return await function(*args, **kwargs)

            return cast("Callable[P, R]", awaited)

        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            asked, circumstances = question(args, kwargs)
            require(within(point.can(*asked, context=circumstances), keeps))
            return function(*args, **kwargs)

        return called

    return decorate


def name_of(source: Source, given: Mapping[str, Any]) -> Name:
    """Return the name a template or function makes of arguments; raise DeniedError where one is missing."""
    if callable(source):
        return source(given)
    parts = [*string.Formatter().parse(source)]
    try:
        match parts:
            case [("", str(alone), _, _)]:
                whole = given[alone]
                return whole if isinstance(whole, EntityUid) else str(whole)
        return "".join(
            literal + ("" if field is None else _inside(given[field])) for literal, field, _, _ in parts
        )
    except KeyError as missing:
        raise DeniedError(f"this is not allowed: nothing says what {missing} is") from None


def _inside(value: Any) -> str:
    """Return a value as it stands inside a quoted name, its own quotes escaped."""
    return str(EntityUid("", str(value))).removeprefix('::"')[:-1]


def _require_arguments(source: Source, signature: inspect.Signature) -> None:
    if callable(source):
        return
    for _, field, _, _ in string.Formatter().parse(source):
        if field is not None and field not in signature.parameters:
            raise InvalidConfigError(
                f"the guarded function has no argument `{field}`",
                hint="Name one in braces, or pass a function.",
            )
