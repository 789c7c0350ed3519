"""Versions as callers name them: one reading, or a refusal."""

from __future__ import annotations

import pytest

from doorward.core.errors import InvalidRequestError
from doorward.core.versions import AtLeast, read

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("v42", AtLeast(42)),
        (DIGEST, AtLeast(0, DIGEST)),
        (f"v1 {DIGEST}", AtLeast(1, DIGEST)),
        (f"{DIGEST} v1", AtLeast(1, DIGEST)),
        ("v999999999999999999", AtLeast(10**18 - 1)),
    ],
)
def test_what_can_be_read_is_written_again(text: str, found: AtLeast) -> None:
    assert read(text) == found
    assert read(str(found)) == found


@pytest.mark.parametrize(
    "text",
    ["", " ", "42", "V42", "v", "v-1", "v042", "v1 v2", "v1  " + DIGEST, f"{DIGEST} {DIGEST}", "v1,v2",
     "v1\n", "v1000000000000000000", DIGEST.upper(), DIGEST[:-1], "sha256:", "v१", f"v1 {DIGEST} v3"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="Doorward-At-Least"):
        read(text)
