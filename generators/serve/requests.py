"""What a client sends, read as Ollama reads it: bodies to plain values, and its own words for what is wrong with them.

Source: ollama, server/routes.go, api/types.go, openai/openai.go, 0.34; Go's encoding/json for the messages about JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from generators.answering import Deployed
from generators.modelfile_reader import ROLES
from generators.specs.schema import OLLAMA_PARAMETERS

Body = dict[str, Any]
Message = dict[str, str]
_REGISTRY = "registry.ollama.ai/library/"
_BLANK = " \t\r\n"
_JSON_OBJECT = {"type": "object"}

# The types of the fields that are read, by Ollama's names for its requests.
_FIELDS: dict[str, dict[str, str]] = {
    "GenerateRequest": {
        "model": "string", "prompt": "string", "suffix": "string", "system": "string", "template": "string", "context": "[]int",
        "stream": "bool", "raw": "bool", "images": "[]api.ImageData", "options": "map[string]interface {}",
    },
    "ChatRequest": {
        "model": "string", "messages": "[]api.Message", "stream": "bool", "tools": "api.Tools", "options": "map[string]interface {}",
    },
    "ShowRequest": {"model": "string", "name": "string"},
    "ChatCompletionRequest": {
        "model": "string", "messages": "[]openai.Message", "stream": "bool", "tools": "[]api.Tool", "max_tokens": "int", "seed": "int",
        "max_completion_tokens": "int", "temperature": "float64", "top_p": "float64", "frequency_penalty": "float64",
        "presence_penalty": "float64", "stream_options": "openai.StreamOptions", "response_format": "openai.ResponseFormat",
    },
}  # fmt: skip
_MESSAGE = {"role": "string", "content": "string", "images": "[]api.ImageData"}
# OpenAI's names of options, and Ollama's.
_OPENAI_OPTIONS = {
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}


class Refused(Exception):
    """A request that is not answered. status: of HTTP."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Ask:
    """What is to be answered. named: the model as the request calls it. raw: a text that is taken as it is, instead of messages.

    messages: without what the Modelfile adds. context: token ids that come before. options: over the Modelfile's PARAMETERs.
    schema: JSON schema of the answer. nothing: only the model is to be loaded (`load`) or given up (`unload`).
    """

    model: Deployed
    named: str
    messages: list[Message] = field(default_factory=list)
    raw: str = ""
    context: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    schema: Any = None
    stream: bool = True
    nothing: str = ""


# --- endpoints --------------------------------------------------------------------------------------------------------------------


def generate(data: bytes, models: Mapping[str, Deployed]) -> Ask:
    """A body of `/api/generate`. Raises Refused."""
    body = read(data, "GenerateRequest")
    model = found(body.get("model", ""), models)
    prompt, named = body.get("prompt", ""), body["model"]
    if not prompt:
        return Ask(model, named, nothing=_nothing(body))
    _check_abilities(body, model, {"suffix": "insert", "images": "vision"})
    if body.get("raw") and any(body.get(name) for name in ("template", "system", "context")):
        raise Refused(400, "raw mode does not support template, system, or context")
    if body.get("template"):
        raise Refused(400, "a template of the request's own is not supported here; use raw")
    common = {"options": _options(body), "schema": _schema(body), "stream": body.get("stream", True)}
    if body.get("raw"):
        return Ask(model, named, raw=prompt, **common)
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    messages = [*system, {"role": "user", "content": prompt}]
    return Ask(model, named, messages, context=_ids(body.get("context", ())), **common)


def chat(data: bytes, models: Mapping[str, Deployed]) -> Ask:
    """A body of `/api/chat`. Raises Refused."""
    body = read(data, "ChatRequest")
    if not body.get("model"):
        raise Refused(400, "model is required")
    model = found(body["model"], models)
    if not body.get("messages"):
        return Ask(model, body["model"], nothing=_nothing(body))
    _check_abilities(body, model, {"tools": "tools"})
    messages = _messages(body["messages"], "ChatRequest", model)
    return Ask(model, body["model"], messages, options=_options(body), schema=_schema(body), stream=body.get("stream", True))


def completion(data: bytes, models: Mapping[str, Deployed]) -> tuple[Ask, bool]:
    """A body of `/v1/chat/completions`: (ask, whether a stream ends with the usage). Raises Refused.

    Ollama sets temperature and top_p to 1 where such a request names none; here the Modelfile's count.
    """
    body = read(data, "ChatCompletionRequest")
    if not body.get("messages"):
        raise Refused(400, "[] is too short - 'messages'")
    if not body.get("model"):
        raise Refused(400, "model is required")
    model = found(body["model"], models)
    _check_abilities(body, model, {"tools": "tools"})
    messages = [_flattened(message) if isinstance(message, dict) else message for message in body["messages"]]
    options = {ours: _option(theirs, OLLAMA_PARAMETERS[ours], body[theirs]) for theirs, ours in _OPENAI_OPTIONS.items() if theirs in body}
    stop = body.get("stop")
    if isinstance(stop, (str, list)) and stop:
        options["stop"] = [stop] if isinstance(stop, str) else [text for text in stop if isinstance(text, str)]
    told = _messages(messages, "ChatCompletionRequest", model)
    schema = _schema_of_openai(body.get("response_format", {}))
    ask = Ask(model, body["model"], told, options=options, schema=schema, stream=body.get("stream", False))
    return ask, bool(body.get("stream_options", {}).get("include_usage"))


def shown(data: bytes, models: Mapping[str, Deployed]) -> Deployed:
    """The model that a body of `/api/show` asks for. Raises Refused."""
    body = read(data, "ShowRequest")
    named = body.get("model") or body.get("name")
    if not named:
        raise Refused(400, "model is required")
    return found(named, models)


# --- parts of a body --------------------------------------------------------------------------------------------------------------


def found(named: str, models: Mapping[str, Deployed]) -> Deployed:
    """The model that Ollama would take `named` for: the tag `latest` may be left out, and letter case does not count."""
    wanted = named.casefold().removeprefix(_REGISTRY).removeprefix("library/").removesuffix(":latest")
    for name, model in models.items():
        if name.casefold() == wanted:
            return model
    raise Refused(404, f"model '{named}' not found")


def _nothing(body: Body) -> str:
    return "unload" if body.get("keep_alive") in (0, "0", "0s", "0m") else "load"


def _check_abilities(body: Body, model: Deployed, needed: Mapping[str, str]) -> None:
    """needed: field to the ability that it takes."""
    for name, ability in needed.items():
        if body.get(name):
            raise Refused(400, f"{_REGISTRY}{model.name}:latest does not support {ability}")
    if body.get("think"):
        raise Refused(400, f'"{body["model"]}" does not support thinking')


def _messages(messages: list[Any], kind: str, model: Deployed) -> list[Message]:
    checked: list[Message] = []
    for message in messages:
        _check_types(message, "Message", _MESSAGE, f"{kind}.messages")
        role = str(message.get("role") or "").lower()
        if message.get("images"):
            raise Refused(400, f"{_REGISTRY}{model.name}:latest does not support vision")
        if role not in ROLES:
            raise Refused(400, f'invalid role: "{role}", must be one of [{" ".join(ROLES)}]')
        checked.append({"role": role, "content": message.get("content") or ""})
    if all(message["role"] == "system" for message in checked):
        raise Refused(400, "there is no message to answer")
    return checked


def _flattened(message: Body) -> Body:
    """OpenAI's content in parts, as one text."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    if any(not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str) for part in content):
        raise Refused(400, "invalid message format")
    return {**message, "content": "\n\n".join(part["text"] for part in content)}


def _options(body: Body) -> dict[str, Any]:
    """Those that Ollama knows, of the type that it wants; others are passed over, as there."""
    kept: dict[str, Any] = {}
    for name, value in body.get("options", {}).items():
        kind = "stop" if name == "stop" else OLLAMA_PARAMETERS.get(name)
        if kind is None or value is None:
            continue
        kept[name] = _option(name, kind, value)
    return kept


def _option(name: str, kind: str, value: Any) -> Any:
    is_number = _kind_of(value) == "number" and -inf < value < inf  # a whole number may be too large for isfinite
    if kind == "stop":
        if not isinstance(value, list):
            raise Refused(400, f'option "{name}" must be of type array')
        if not all(isinstance(text, str) for text in value):
            raise Refused(400, f'option "{name}" must be of an array of strings')
    elif kind == "boolean" and not isinstance(value, bool):
        raise Refused(400, f'option "{name}" must be of type boolean')
    elif kind in ("integer", "number") and not is_number:
        raise Refused(400, f'option "{name}" must be of type {"integer" if kind == "integer" else "float32"}')
    return int(value) if kind == "integer" else value


def _schema(body: Body) -> Any:
    """Of `format`: `json`, a JSON schema, or nothing."""
    wanted = body.get("format")
    if wanted in (None, ""):
        return None
    if wanted == "json":
        return _JSON_OBJECT
    if not isinstance(wanted, dict):
        raise Refused(400, f'invalid format: {json.dumps(wanted)}; expected "json" or a valid JSON Schema object')
    return wanted


def _schema_of_openai(wanted: Body) -> Any:
    if wanted.get("type") == "json_object":
        return _JSON_OBJECT
    declared = wanted.get("json_schema")
    return declared.get("schema") if wanted.get("type") == "json_schema" and isinstance(declared, dict) else None


def _ids(context: Iterable[Any]) -> tuple[int, ...]:
    ids = tuple(context)
    for token in ids:
        if not _fits(token, "int") or not 0 <= token < 2**31:
            raise Refused(400, f"json: cannot unmarshal {_kind_of(token)} into Go struct field GenerateRequest.context of type int")
    return ids


# --- JSON as Go reads it ----------------------------------------------------------------------------------------------------------


def read(data: bytes, kind: str) -> Body:
    """The object in a request's body, without fields that are null. Raises Refused."""
    body = decoded(data)
    if not isinstance(body, dict):
        raise Refused(400, f"json: cannot unmarshal {_kind_of(body)} into Go value of type api.{kind}")
    body = {name: value for name, value in body.items() if value is not None}
    _check_types(body, kind, _FIELDS[kind])
    return body


def decoded(data: bytes) -> Any:
    """The JSON value that a body begins with; what follows it is not looked at, as in Go. Raises Refused."""
    text = data.decode("utf-8", errors="replace").lstrip(_BLANK)
    if not text:
        raise Refused(400, "missing request body")
    try:
        return _without_surrogates(json.JSONDecoder(parse_constant=_no_constant).raw_decode(text)[0])
    except json.JSONDecodeError as error:
        raise Refused(400, _in_go(error)) from error
    except RecursionError as error:
        raise Refused(400, "exceeded max depth") from error
    except ValueError as error:  # a number of thousands of digits
        raise Refused(400, "json: cannot unmarshal number into Go value of type float64") from error


def _no_constant(name: str) -> Any:
    raise Refused(400, f"invalid character '{name[0]}' looking for beginning of value")


# json's messages, by how they begin, and what Go says of the character at that place.
_GO_WORDS = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name": "looking for beginning of object key string",
    "Illegal trailing comma before end of object": "looking for beginning of object key string",
    "Illegal trailing comma before end of array": "looking for beginning of value",
    "Expecting ':'": "after object key",
    "Expecting ','": "after object key:value pair",
    "Invalid control character": "in string literal",
    "Invalid \\escape": "in string escape code",
    "Invalid \\uXXXX": "in \\u hexadecimal character escape",
}


def _in_go(error: json.JSONDecodeError) -> str:
    at = error.pos + (1 if error.msg.startswith("Invalid \\") else 0)
    if error.msg.startswith("Illegal trailing comma"):
        at = len(error.doc) - len(error.doc[at + 1 :].lstrip(_BLANK))
    if at >= len(error.doc) or error.msg.startswith("Unterminated"):
        return "unexpected EOF"
    where = next((words for start, words in _GO_WORDS.items() if error.msg.startswith(start)), "looking for beginning of value")
    if where == "after object key:value pair" and _in_array(error.doc, error.pos):
        where = "after array element"
    character = "'\\''" if error.doc[at] == "'" else repr(error.doc[at])
    return f"invalid character {character} {where}"


def _in_array(text: str, end: int) -> bool:
    """Whether the innermost bracket that is open before `end` is one of an array."""
    opened, in_string, escaped = [], False, False
    for character in text[:end]:
        if in_string:
            in_string, escaped = escaped or character != '"', character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            opened.append(character)
        elif character in "]}" and opened:
            opened.pop()
    return opened[-1:] == ["["]


def _without_surrogates(value: Any) -> Any:
    """Halves of characters, which JSON can spell and no text can hold, become U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_surrogates(item) for key, item in value.items()}
    return value


def _check_types(body: Any, kind: str, fields: Mapping[str, str], way: str = "") -> None:
    if not isinstance(body, dict):
        raise Refused(400, f"json: cannot unmarshal {_kind_of(body)} into Go struct field {way} of type api.{kind}")
    for name, wanted in fields.items():
        value = body.get(name)
        if value is not None and not _fits(value, wanted):
            raise Refused(400, f"json: cannot unmarshal {_kind_of(value)} into Go struct field {way or kind}.{name} of type {wanted}")


def _fits(value: Any, wanted: str) -> bool:
    kind = _kind_of(value)
    if wanted == "int":
        return kind == "number" and (isinstance(value, int) or value.is_integer())
    return kind == {"string": "string", "bool": "bool", "float64": "number"}.get(wanted, "array" if _is_array(wanted) else "object")


def _is_array(wanted: str) -> bool:
    return wanted.startswith("[]") or wanted == "api.Tools"


def _kind_of(value: Any) -> str:
    """As Go calls what JSON holds."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return "null" if value is None else {"str": "string", "list": "array", "dict": "object"}[type(value).__name__]
