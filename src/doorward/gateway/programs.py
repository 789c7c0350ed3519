"""Which program asks, by its own words: the product's name alone, so that a new version is no new program."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

NONE: Final = "none"
# Browsers all begin with `Mozilla/5.0`; the first of these that is there names them.
_BROWSERS: Final = (
    ("Edg", "edge"), ("OPR", "opera"), ("Firefox", "firefox"), ("Chrome", "chrome"), ("Safari", "safari"),
)  # fmt: skip
_PRODUCT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_LONGEST: Final = 512


@lru_cache(maxsize=4096)
def product_of(user_agent: str | None) -> str:
    """Return the product of a User-Agent (RFC 9110 10.1.5) in lower case, else `none` or `other`."""
    if not user_agent:
        return NONE
    text = user_agent[:_LONGEST]
    if text.startswith("Mozilla/"):
        return next((name for token, name in _BROWSERS if f"{token}/" in text), "mozilla")
    found = _PRODUCT.match(text)
    return "other" if found is None else found[0].lower().rstrip("._-")
