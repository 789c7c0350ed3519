"""Turn templates into answers; everything a template prints is escaped, and nothing in it is hidden."""

from __future__ import annotations

import unicodedata
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from doorward.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from fastapi import Request

STATIC = Path(__file__).parent / "static"
_VENDORED = STATIC / "vendor" / ".built"
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MAX_TEXT = 2000


def visible(value: object) -> str:
    r"""Return text with every control, format and bidi character spelt out (`\u202e`), and bounded.

    Names come from callers: an invisible character must not make one name look like another, nor
    turn the line around.
    """
    text = "" if value is None else str(value)
    shown = text[:_MAX_TEXT]
    spelt = "".join(_spell(character) for character in shown)
    return spelt if len(text) <= _MAX_TEXT else f"{spelt} … ({len(text)} characters)"


def _spell(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN:
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 -- the basic plane


def _spelt_out(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def environment() -> Environment:
    """Return the template environment: always escaping, never guessing an undefined name."""
    made = Environment(
        loader=PackageLoader("doorward.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_spelt_out,
    )
    made.filters["visible"] = visible
    return made


def page(request: Request, template: str, status: int = HTTPStatus.OK, **values: Any) -> HTMLResponse:
    """Render one page for a browser."""
    return HTMLResponse(fragment(template, path=request.url.path, **values), status)


def fragment(template: str, **values: Any) -> str:
    """Render a template to text."""
    return environment().get_template(template).render(**values)


def require_vendored() -> None:
    """Raise InvalidConfigError when the console's scripts and fonts have not been brought."""
    if not _VENDORED.exists():
        raise InvalidConfigError(
            "the console's scripts and fonts are missing",
            hint="Run `make setup` (it brings them with npm); an installed wheel carries them.",
        )
