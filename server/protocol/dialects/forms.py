"""The forms that the parts of a request must have, as far as they are read here. A provider refuses other ones too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from server.errors import InvalidType

TEXT, NUMBER, FLAG = "a string", "a number", "a boolean"
Form = Any
"""`TEXT`, `NUMBER` or `FLAG`; fields and their forms; a list with the form of each item; a tuple of alternatives."""

_KINDS: Mapping[str, tuple[type, ...]] = {TEXT: (str,), NUMBER: (int, float, orjson.Fragment), FLAG: (bool,)}
_ANY_OBJECT: Form = {}
_PART: Form = {
    **dict.fromkeys(("type", "text", "refusal", "detail", "filename", "file_data", "file_url", "file_id"), TEXT),
    "image_url": TEXT,
    "input_audio": _ANY_OBJECT,
}
_PARTS: Form = (TEXT, [_PART])
_ITEM: Form = {
    **dict.fromkeys(("type", "role", "id", "call_id", "name", "namespace", "encrypted_content", "server_label"), TEXT),
    "content": _PARTS,
    "output": (TEXT, [_ANY_OBJECT], _ANY_OBJECT, NUMBER, FLAG),
    "summary": [_PART],
}
_FUNCTION: Form = {
    **dict.fromkeys(("type", "name", "description"), TEXT),
    "parameters": _ANY_OBJECT,
    "strict": FLAG,
    "format": dict.fromkeys(("type", "syntax", "definition"), TEXT),
}
_TOOL: Form = {
    **_FUNCTION,
    **dict.fromkeys(("server_label", "server_url", "authorization"), TEXT),
    "tools": [_FUNCTION],
    "container": (TEXT, {"file_ids": [TEXT]}),
    "filters": {"allowed_domains": [TEXT]},
    "user_location": _ANY_OBJECT,
    "headers": _ANY_OBJECT,
    "allowed_tools": ([TEXT], {"tool_names": [TEXT]}),
    "require_approval": (TEXT, _ANY_OBJECT),
}
_NAMED: Form = {"type": TEXT, "name": TEXT}
_ALLOWED: Form = {**_NAMED, "mode": TEXT, "tools": [_NAMED]}
REQUEST: Form = {
    "input": (TEXT, [_ITEM]),
    "instructions": TEXT,
    "include": [TEXT],
    "tools": [_TOOL],
    "tool_choice": (TEXT, {**_ALLOWED, "allowed_tools": _ALLOWED}),
    "text": {"format": {"type": TEXT, "name": TEXT, "schema": _ANY_OBJECT}, "verbosity": TEXT},
    "reasoning": {"effort": TEXT, "summary": TEXT},
    "thinking": {"type": TEXT, "budget_tokens": NUMBER},
    "stop": (TEXT, [TEXT]),
    **dict.fromkeys(("user", "safety_identifier", "service_tier"), TEXT),
    **dict.fromkeys(("stream", "parallel_tool_calls"), FLAG),
    **dict.fromkeys(("max_output_tokens", "max_tokens", "temperature", "top_p", "top_logprobs"), NUMBER),
}


def check(value: Any, form: Form = REQUEST, where: str = "") -> None:
    """Check a value. A field that is null is taken for one that is absent; fields that the form lacks may be anything.

    Raises:
        InvalidType: names the place, and what is expected there

    """
    alternatives = form if isinstance(form, tuple) else (form,)
    found = next((one for one in alternatives if _is_of(value, one)), None)
    if found is None:
        raise InvalidType(where, " or ".join(map(_name, alternatives)), value)
    if isinstance(found, dict):
        for name in found.keys() & value.keys():
            if value[name] is not None:
                check(value[name], found[name], f"{where}.{name}" if where else name)
    elif isinstance(found, list):
        for index, item in enumerate(value):
            check(item, found[0], f"{where}[{index}]")


def _is_of(value: Any, form: Form) -> bool:
    if isinstance(form, str):
        return isinstance(value, _KINDS[form]) and (form == FLAG or not isinstance(value, bool))
    return isinstance(value, type(form))


def _name(form: Form) -> str:
    if isinstance(form, str):
        return form
    return "an array" if isinstance(form, list) else "an object"
