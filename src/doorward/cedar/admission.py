"""Admit policies: caps, then parser and strict validation in a child process, then our own rules.

Admission is all or nothing. Every problem is reported with file, line and column.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from doorward.cedar import annotations as grammar
from doorward.cedar import caps
from doorward.cedar.parser_client import ask
from doorward.cedar.problems import File, Problem, RefusedPoliciesError, nearest
from doorward.cedar.tokens import Kind, Span, split, tokens
from doorward.core.feed import Bundle, PolicyText
from doorward.core.model import NAMESPACE

SCHEMA = "schema.cedarschema"
_QUOTED = re.compile(r"`([^`]+)`|'([^']+)'")
_WHICH = re.compile(r"^(?:error: )?for policy `policy0`[,:] ")
_NO_ACTION = "unable to find an applicable action given the policy scope constraints"
_UNFINISHED = "unexpected end of input"


class PolicySource(msgspec.Struct, frozen=True):
    """One file of policies; in a guardrail file only `forbid` stands."""

    name: str
    text: str
    guardrail: bool = False


class _Reading(msgspec.Struct, frozen=True):
    """One file, split into policies, and what the parser said of each."""

    source: PolicySource
    file: File
    spans: tuple[Span, ...]
    answers: tuple[dict[str, Any], ...] = ()
    same: bool = True


def admit(sources: Sequence[PolicySource], schema: str) -> Bundle:
    """Return the bundle of these files; raise RefusedPoliciesError with all that is wrong."""
    _refuse(_over_caps(sources, schema))
    split_files = [_split(source) for source in sources]
    answer = ask(_question(split_files, schema))
    if "schema_error" in answer:
        _refuse([_schema_problem(schema, str(answer["schema_error"]))])
    readings = [
        msgspec.structs.replace(reading, answers=tuple(said["policies"]), same=bool(said["same"]))
        for reading, said in zip(split_files, answer["files"], strict=True)
    ]
    _refuse([*_problems(readings, schema)])
    return bundle_of(
        schema,
        policies=[policy for r in readings if not r.source.guardrail for policy in _texts(r)],
        guardrails=[policy for r in readings if r.source.guardrail for policy in _texts(r)],
    )


def bundle_of(
    schema: str, *, policies: Sequence[PolicyText], guardrails: Sequence[PolicyText] = ()
) -> Bundle:
    """Return the bundle with its digest: `sha256:` of the canonical JSON of what it holds."""
    bundle = Bundle("", schema, tuple(policies), tuple(guardrails))
    content = {
        "guardrails": bundle.guardrails,
        "policies": bundle.policies,
        "schema": schema,
    }
    canonical = msgspec.json.encode(content, order="deterministic")
    return msgspec.structs.replace(bundle, digest=f"sha256:{hashlib.sha256(canonical).hexdigest()}")


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise RefusedPoliciesError(problems)


def _over_caps(sources: Sequence[PolicySource], schema: str) -> list[Problem]:
    files = [File(source.name, source.text) for source in sources]
    everything = [*files, File(SCHEMA, schema)]
    problems = [problem for file in everything if (problem := caps.oversized(file))]
    total = sum(len(file.text) for file in files)
    if total > caps.MAX_TOTAL:
        problems.append(_whole(f"all policies together hold {total:,} characters", caps.MAX_TOTAL))
    if problems:
        return problems
    for file in files:
        problems += caps.exceeded(file)
    problems += caps.exceeded(File(SCHEMA, schema), schema=True)
    count = sum(file.text.count(";") for file in files)
    if not problems and count > caps.MAX_POLICIES:
        count = sum(len(_split(source).spans) for source in sources)
        if count > caps.MAX_POLICIES:
            problems.append(_whole(f"there are {count:,} policies", caps.MAX_POLICIES))
    return problems


def _whole(message: str, most: int) -> Problem:
    return Problem(
        file="policies",
        line=1,
        column=1,
        message=f"{message}; at most {most:,} are read",
        hint="Remove some.",
    )


def _split(source: PolicySource) -> _Reading:
    return _Reading(source, File(source.name, source.text), tuple(split(tokens(source.text))))


def _question(readings: Sequence[_Reading], schema: str) -> dict[str, Any]:
    def part(reading: _Reading, span: Span) -> dict[str, Any]:
        text = reading.source.text[span.start : span.end]
        return {"text": text, "ends": [token.end - span.start for token in span.tokens]}

    files = [
        {"text": reading.source.text, "policies": [part(reading, span) for span in reading.spans]}
        for reading in readings
    ]
    return {"do": "admit", "schema": schema, "files": files}


def _schema_problem(schema: str, error: str) -> Problem:
    file = File(SCHEMA, schema)
    return file.problem(
        _mentioned(error, tuple(tokens(schema))) or 0, error, "See the packaged schema for the form."
    )


def _problems(readings: Sequence[_Reading], schema: str) -> Iterator[Problem]:
    names = _declared(schema)
    seen: dict[str, str] = {}
    for reading in readings:
        for span, answer in zip(reading.spans, reading.answers, strict=True):
            yield from _annotation_problems(reading, span, answer, seen)
            if "tree" in answer:
                yield from _meaning_problems(reading, span, answer, names)
            else:
                yield _syntax_problem(reading.file, span, answer)
        if not reading.same:
            yield reading.file.problem(
                0,
                "the parser reads this file differently from us, so it is not used",
                "Look for odd characters outside text and comments.",
            )


def _syntax_problem(file: File, span: Span, answer: dict[str, Any]) -> Problem:
    error = str(answer["error"])
    token = span.tokens[min(int(answer["token"]), len(span.tokens) - 1)]
    if error == _UNFINISHED:
        return file.problem(span.tokens[-1].start, "the policy is not finished", "End every policy with `;`.")
    offset = token.start
    if token is span.tokens[-1]:
        # The grammar was satisfied to the end: the mistake is in the meaning of a name.
        offset = _mentioned(error, span.tokens) or span.head.start
    return file.problem(offset, error, "Compare it with the policies of `doorward init`.")


def _mentioned(error: str, among: Sequence[Any]) -> int | None:
    """Return the offset of the first token that the message quotes."""
    for found in _QUOTED.finditer(error):
        words = {token.text.strip('"') for token in tokens(found[1] or found[2])}
        wanted = list(re.findall(r"[A-Za-z_][A-Za-z0-9_]*|[^\s\w]+", found[1] or found[2]))
        for word in reversed(wanted):
            for token in among:
                if token.text.strip('"') == word and word in words and word not in {"::", '"'}:
                    return int(token.start)
    last = error.rpartition(": ")[2]
    return next((int(token.start) for token in among if token.text in {last, f'"{last}"'}), None)


def _declared(schema: str) -> frozenset[str]:
    return frozenset(token.text for token in tokens(schema) if token.kind in {Kind.NAME, Kind.TEXT})


def _meaning_problems(
    reading: _Reading, span: Span, answer: dict[str, Any], names: frozenset[str]
) -> Iterator[Problem]:
    errors = dict.fromkeys(_WHICH.sub("", str(error)) for error in answer["invalid"])
    if len(errors) > 1:
        errors.pop(_NO_ACTION, None)
    told: set[int] = set()
    for error in errors:
        offset = _mentioned(error, span.tokens) or span.head.start
        if offset not in told:  # the validator repeats an error for every action and type
            told.add(offset)
            yield reading.file.problem(offset, error, _meaning_hint(error, names))
    if reading.source.guardrail and answer["tree"]["effect"] != "forbid":
        yield reading.file.problem(
            span.head.start,
            "a guardrail is a statement of what may never be allowed, so it must be a `forbid`",
            "Write `forbid`, or move the policy out of guardrails/.",
        )


def _meaning_hint(error: str, names: frozenset[str]) -> str:
    quoted = _QUOTED.search(error)
    word = quoted[1] or quoted[2] if quoted else ""
    if "entity type" in error and "::" not in word and word in names and "unrecognized" in error:
        return f"Write the full name, `{NAMESPACE}::{word}`, or let `doorward fmt` write it."
    if "optional attribute" in error:
        return f"Ask for it first: `… has {word} && …`."
    last = re.findall(r"[A-Za-z_][A-Za-z0-9_]*", word)[-1:] or [""]
    near = nearest(last[0], {name.strip('"') for name in names}) if last[0] else None
    return (
        f"Did you mean `{near}`?" if near and near != last[0] else "See schema.cedarschema for what exists."
    )


def _annotation_problems(
    reading: _Reading, span: Span, answer: dict[str, Any], seen: dict[str, str]
) -> Iterator[Problem]:
    file, values = reading.file, answer.get("tree", {}).get("annotations", {})
    forbid = span.head.text == "forbid"
    for annotation in span.annotations:
        name, offset = annotation.name, annotation.start
        if name not in grammar.NAMES:
            near = nearest(name, grammar.NAMES)
            fix = f"Did you mean @{near}?" if near else f"Known: {', '.join(sorted(grammar.NAMES))}."
            yield file.problem(offset, f"there is no annotation @{name}", fix)
        elif forbid and name not in grammar.ON_FORBID:
            fix = "Put it on the permits; on a forbid only @advice and @notify are kept."
            yield file.problem(offset, f"@{name} on a forbid would never be kept", fix)
        elif name in values:
            try:
                grammar.check(name, values[name] or "")
            except grammar.AnnotationError as reason:
                yield file.problem(offset, reason.message, reason.hint)
    yield from _id_problems(file, span, answer, seen)


def _id_problems(file: File, span: Span, answer: dict[str, Any], seen: dict[str, str]) -> Iterator[Problem]:
    where = next((a.start for a in span.annotations if a.name == "id"), None)
    if where is None:
        if span.head.text in {"permit", "forbid"}:
            yield file.problem(
                span.head.start, "this policy has no @id", 'Write @id("a-name-of-its-own") above it.'
            )
        return
    name = answer.get("tree", {}).get("annotations", {}).get("id")
    if not name:
        return
    if name in seen:
        yield file.problem(where, f'@id("{name}") is used twice; first at {seen[name]}', "Rename one.")
    seen.setdefault(name, f"{file.name}:{file.place(where)[0]}")


def _texts(reading: _Reading) -> Iterator[PolicyText]:
    for span, answer in zip(reading.spans, reading.answers, strict=True):
        tree = answer["tree"]
        kept = {name: value or "" for name, value in tree["annotations"].items()}
        line, _ = reading.file.place(span.head.start)
        yield PolicyText(
            id=kept["id"],
            text=reading.source.text[span.start : span.end],
            place=f"{reading.source.name}:{line}",
            annotations=kept,
            effect=tree["effect"],
            tree=tree,
        )
