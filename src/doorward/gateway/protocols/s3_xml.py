"""Read and write S3's XML: no document type, no entities, bounded, one reading."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from xml.sax.saxutils import escape

from doorward.core.errors import InvalidRequestError
from doorward.core.wire import Answer

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
MAX_XML = 4 * 1024 * 1024
# 10,000 parts with a checksum each have 80,000; a document of nothing but tags would take seconds to read.
_MAX_TAGS = 150_000
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _broken(why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the XML body {why}", hint="Send plain S3 XML in UTF-8.", code="malformed_xml"
    )


def read_xml(body: bytes) -> ET.Element:
    """Parse untrusted XML; raise InvalidRequestError for a document type, another encoding, or nonsense."""
    if len(body) > MAX_XML:
        raise _broken("is too large")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _broken("is not UTF-8") from None
    # Entities, document types, comments, CDATA: none has a place in a request, each has a second reading.
    if "<!" in text or text.count("<?") > 1 or "\0" in text:
        raise _broken("holds a declaration that is not allowed")
    if text.count("<") > _MAX_TAGS:
        raise _broken("has too many elements")
    try:
        return ET.fromstring(text, parser=ET.XMLParser(encoding="utf-8"))  # noqa: S314 -- no DTD gets here
    except ET.ParseError:
        raise _broken("is not well-formed") from None


def local(element: ET.Element) -> str:
    """Return an element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def children(element: ET.Element, allowed: frozenset[str]) -> dict[str, str]:
    """Return the texts of an element's children, each at most once; raise InvalidRequestError otherwise."""
    found: dict[str, str] = {}
    for child in element:
        name = local(child)
        if name not in allowed or name in found or len(child):
            raise _broken(f"holds `{name[:40]}` where it does not belong, or twice")
        found[name] = child.text or ""
    return found


def write_xml(name: str, content: object, *, namespace: bool = True) -> bytes:
    """Return a document: `content` is text or (name, content) pairs."""
    attribute = f' xmlns="{NAMESPACE}"' if namespace else ""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}{attribute}>{_inner(content)}</{name}>'.encode()


def _inner(content: object) -> str:
    if isinstance(content, str):
        return escape(_UNPRINTABLE.sub("\ufffd", content)).replace("\r", "&#13;")
    if isinstance(content, Iterable):
        return "".join(f"<{name}>{_inner(inner)}</{name}>" for name, inner in content)
    raise TypeError(type(content))


def xml_answer(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an XML answer."""
    lines = [("content-type", "application/xml"), ("content-length", str(len(body)))]
    return Answer(status=status, headers=[*lines, *(headers or {}).items()], body=body)


def error_answer(  # noqa: PLR0913 -- the fields of an S3 error, all by name
    *, status: int, code: str, message: str, request_id: str, resource: str = "", head: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Answer:  # fmt: skip
    """Return an S3 error; a HEAD gets the status alone, as S3 does."""
    extra = {"x-amz-request-id": request_id, **(headers or {})}
    if head:
        return Answer(status=status, headers=[("content-type", "application/xml"), *extra.items()], body=b"")
    fields = [("Code", code), ("Message", message)]
    if resource:
        fields.append(("Resource", resource))
    fields.append(("RequestId", request_id))
    return xml_answer(status, write_xml("Error", fields, namespace=False), extra)
