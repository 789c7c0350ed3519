"""Which parts of an OpenAI request body are understood, and so may pass; the rest is refused by name.

The lists follow the public API reference plus the sampling settings of llama.cpp and vLLM. A field
that names something Doorward does not govern yet (a stored file, a server-side tool, an address to
fetch, another model) is refused, since letting it pass would let it pass undecided.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from doorward.core.context import RequestContext
from doorward.core.errors import InvalidRequestError
from doorward.gateway.strict_json import refuse_variants

_SAMPLING = frozenset(
    {
        "temperature", "top_p", "top_k", "min_p", "typical_p", "top_n_sigma", "frequency_penalty",
        "presence_penalty", "repeat_penalty", "repeat_last_n", "repetition_penalty", "length_penalty",
        "mirostat", "mirostat_tau", "mirostat_eta", "dynatemp_range", "dynatemp_exponent", "xtc_probability",
        "xtc_threshold", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n",
        "dry_sequence_breakers", "seed", "stop", "stop_token_ids", "logit_bias", "logprobs", "top_logprobs",
        "n_probs", "min_keep", "min_tokens", "ignore_eos", "samplers", "n_predict", "cache_prompt",
        "timings_per_token", "post_sampling_probs", "return_tokens", "grammar", "json_schema",
        "skip_special_tokens", "use_beam_search",
    }
)  # fmt: skip
_COMMON = frozenset({"model", "stream", "stream_options", "user", "n", "max_tokens"}) | _SAMPLING
_CHAT = _COMMON | {
    "messages", "max_completion_tokens", "tools", "tool_choice", "parallel_tool_calls", "functions",
    "function_call", "response_format", "modalities", "audio", "prediction", "reasoning_effort", "verbosity",
    "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "chat_template_kwargs", "reasoning_format", "add_generation_prompt",
}  # fmt: skip
_COMPLETION = _COMMON | {"prompt", "suffix", "echo", "best_of"}
_RESPONSE = frozenset(
    {
        "model", "input", "instructions", "stream", "stream_options", "max_output_tokens", "max_tool_calls",
        "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "temperature", "top_p",
        "top_logprobs", "truncation", "metadata", "store", "include", "user", "service_tier",
        "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "background",
        "conversation", "previous_response_id",
    }
)  # fmt: skip
_EMBEDDING = frozenset({"model", "input", "dimensions", "encoding_format", "user"})
ALLOWED: dict[str, frozenset[str]] = {
    "/v1/chat/completions": _CHAT,
    "/v1/completions": _COMPLETION,
    "/v1/responses": _RESPONSE,
    "/v1/embeddings": _EMBEDDING,
}
# Every way to say how long the answer may be; the largest counts, since upstreams differ in which rules.
_LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
# State kept by the upstream under an id that says nothing about whose it is.
_STORED = {"conversation", "previous_response_id"}
_TOOL_TYPES = {"function", "custom"}
_TEXT_PARTS = {"text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text"}
_IMAGE_PARTS = {"image_url", "input_image"}
_FILE_PARTS = {"file", "input_file"}
_ITEMS = {
    "message", "reasoning", "function_call", "function_call_output", "custom_tool_call",
    "custom_tool_call_output",
}  # fmt: skip
_REFERENCES = {"file_id", "file_url", "image_url", "url"}
_MAX_NAME = 256


def read_facts(route: str, document: dict[str, Any], *, size: int) -> tuple[str, RequestContext]:
    """Return the model a body names and what policies may know of it; `size` in bytes.

    Raise InvalidRequestError for anything that is not understood.
    """
    _require_allowed_keys(document, ALLOWED[route], "the body")
    _refuse_stored_state(document)
    model = _model_name(document.get("model"))
    tools = frozenset(_tool_names(document))
    for key in ("messages", "input"):
        if route != "/v1/embeddings":
            _read_items(document.get(key), key)
    _read_prediction(document.get("prediction"))
    facts = RequestContext(
        bytes=size,
        stream=_flag(document, "stream"),
        tools=tools,
        max_tokens=_longest(document),
    )
    return model, facts


def _require_allowed_keys(members: dict[str, Any], allowed: frozenset[str], where: str) -> None:
    refuse_variants(members, allowed)
    for key in members:
        if key not in allowed:
            _refuse(f"{where} has the key `{key[:64]}`, which is not allowed here", "Leave it out.")


def _refuse_stored_state(document: dict[str, Any]) -> None:
    for key in sorted(_STORED & document.keys()):
        if document[key] is not None:
            _refuse(
                f"`{key}` names stored state, which this gateway does not govern yet",
                "Send the earlier messages with the request.",
            )
    if _flag(document, "background"):
        _refuse("`background` answers are fetched by routes that are not allowed", "Leave `background` out.")


def _model_name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        _refuse("`model` must name one model", 'Send "model": "<name>".')
    if len(value) > _MAX_NAME or not value.isprintable():
        _refuse("`model` is longer than 256 characters or holds control characters", "Check the name.")
    return value


def _flag(document: dict[str, Any], key: str) -> bool:
    value = document.get(key)
    if value is not None and not isinstance(value, bool):
        _refuse(f"`{key}` must be true or false", "")
    return bool(value)


def _longest(document: dict[str, Any]) -> int | None:
    lengths = [document[key] for key in _LENGTHS if document.get(key) is not None]
    for value in lengths:
        if type(value) is not int or not 0 <= value < 2**31:
            _refuse("the length of the answer must be a whole number from 0", "Check max_tokens.")
    return max(lengths, default=None)


def _tool_names(document: dict[str, Any]) -> Iterator[str]:
    for tool in _objects(document.get("tools"), "tools"):
        refuse_variants(tool, {"type", "function", "name"})
        kind = tool.get("type")
        if not isinstance(kind, str) or kind not in _TOOL_TYPES:
            _refuse(
                f"a tool of the type `{str(kind)[:64]}` runs at the upstream, which is not governed yet",
                "Offer tools of the type `function`; connect tool servers through Doorward.",
            )
        nested = tool.get(kind)
        yield _tool_name(nested if isinstance(nested, dict) else tool)
    for function in _objects(document.get("functions"), "functions"):
        yield _tool_name(function)


def _tool_name(function: dict[str, Any]) -> str:
    refuse_variants(function, {"name"})
    name = function.get("name")
    if not isinstance(name, str) or not name:
        _refuse("a tool has no `name`", "")
    return name


def _read_items(value: Any, where: str) -> None:
    if value is None or isinstance(value, str):
        return
    for item in _objects(value, where):
        refuse_variants(item, {"role", "content", "type", "id", "output", "summary", "audio"})
        kind = item.get("type", "message")
        if not isinstance(kind, str) or kind not in _ITEMS:
            _refuse(
                f"`{where}` holds an item of the type `{str(kind)[:64]}`, which is not governed yet",
                "Send the content itself.",
            )
        for key in ("content", "output", "summary"):
            _read_content(item.get(key))
        _refuse_stored_audio(item)


def _refuse_stored_audio(item: dict[str, Any]) -> None:
    if item.get("audio") is not None:
        _refuse(
            "`audio` in a message names a stored answer, which is not governed yet",
            "Send the content itself.",
        )


def _read_prediction(value: Any) -> None:
    if isinstance(value, dict):
        _read_content(value.get("content"))


def _read_content(value: Any) -> None:
    if value is None or isinstance(value, str):
        return
    for part in _objects(value, "content"):
        refuse_variants(part, {"type", *_REFERENCES, "file", "file_data", "input_audio"})
        kind = part.get("type")
        if kind in _TEXT_PARTS or kind == "input_audio":
            _refuse_references(part, set())
        elif kind in _IMAGE_PARTS:
            _refuse_references(part, {"image_url"})
            _require_inline_image(part.get("image_url"))
        elif kind in _FILE_PARTS:
            _refuse_references(part, set())
            nested = part.get("file")
            if isinstance(nested, dict):
                refuse_variants(nested, {"file_id", "file_data", "filename"})
                _refuse_references(nested, set())
        else:
            _refuse(f"content of the type `{str(kind)[:64]}` is not governed yet", "Send text.")


def _refuse_references(part: dict[str, Any], read: set[str]) -> None:
    for key in sorted((_REFERENCES - read) & part.keys()):
        if part[key] is not None:
            _refuse(
                f"`{key}` in a message makes the upstream fetch something that is not governed yet",
                "Send the content itself, inline.",
            )


def _require_inline_image(value: Any) -> None:
    if isinstance(value, dict):
        refuse_variants(value, {"url", "detail"})
        value = value.get("url")
    if not isinstance(value, str) or not value.startswith("data:image/"):
        _refuse(
            "an image must be sent inline: an address would be fetched by the upstream, from its network",
            "Send it as a `data:image/...;base64,` URL.",
        )


def _objects(value: Any, where: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        _refuse(f"`{where}` must be a list of objects", "")
    return value


def _refuse(message: str, hint: str) -> NoReturn:
    raise InvalidRequestError(message, hint=hint)
