"""Tools and the choice among them, as the provider can be told them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from server.errors import MissingParameter
from server.protocol import jsontext
from server.protocol.dialects.losses import Losses
from server.protocol.dialects.manners import Dialect, Manners

Tool = dict[str, Any]

WEB_SEARCH = ("web_search", "web_search_preview", "web_search_2025_08_26", "web_search_preview_2025_03_11")
CHOSEN = (*WEB_SEARCH, "code_interpreter")
HOSTED = (*CHOSEN, "mcp")
"""Tools that Anthropic runs itself too, see `hosted_tools`."""
CUSTOM_ARGUMENT = "input"
"""The one argument of the function that stands for a custom tool."""


def prepared_tools(given: Iterable[Any], manners: Manners, losses: Losses) -> list[Tool]:
    """The tools that the library translates."""
    made = []
    for index, tool in enumerate(given):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind is None:
            raise MissingParameter(f"tools[{index}].type")
        if kind in ("function", "custom"):
            made.append(_called(tool, manners))
        elif kind == "namespace":
            inner = tool.get("tools") or ()
            made.append({**tool, "tools": [_called(one, manners) for one in inner]})
        elif not (kind in HOSTED and manners.dialect is Dialect.MESSAGES):
            losses.lose(f"tools[{index}]", f"a tool of type '{kind}'")
    return made


def takes_custom(manners: Manners) -> bool:
    """Whether the provider knows custom tools; others get a function in their place."""
    return manners.dialect is Dialect.CHAT and manners.full


def stood_in_for(given: Iterable[Any], manners: Manners) -> frozenset[str]:
    """The names of the custom tools for which functions stand in: calls of these are to be told as custom calls."""
    if takes_custom(manners):
        return frozenset()
    return frozenset(name for name, tool in _with_names(given) if tool.get("type") == "custom")


def namespaced(given: Iterable[Any]) -> frozenset[str]:
    """The names, as providers know them, of the tools in namespaces. Another name may look like one of these."""
    spaces = [tool for tool in given if tool.get("type") == "namespace"]
    return frozenset(name for name, _ in _with_names(spaces))


def full_name(space: str | None, name: str) -> str:
    """The name by which the provider knows a tool. The library joins those of a namespace and of a tool so."""
    return f"{space}--{name}" if space else name


def _with_names(given: Iterable[Any], space: str | None = None) -> Iterator[tuple[str, Tool]]:
    """All tools, also those in namespaces, with the names by which the provider knows them."""
    for tool in given:
        if tool.get("type") == "namespace":
            yield from _with_names(tool.get("tools") or (), tool.get("name"))
        elif tool.get("name"):
            yield full_name(space, tool["name"]), tool


def as_arguments(text: Any) -> str:
    """What was given to a custom tool, as arguments of the function that stands for it."""
    return jsontext.dumps({CUSTOM_ARGUMENT: text or ""}).decode()


def from_arguments(arguments: str) -> str:
    """What a custom tool is given by these arguments. A model may have written the text itself instead of JSON."""
    try:
        value = jsontext.loads(arguments.encode("utf-8", "replace"))
    except ValueError:
        return arguments
    text = value.get(CUSTOM_ARGUMENT) if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments


def _called(tool: Tool, manners: Manners) -> Tool:
    """A function, or a custom tool as it is or as the function that stands for it."""
    if tool.get("type") != "custom":
        return _function(tool)
    return tool if takes_custom(manners) else _stand_in(tool)


def _function(tool: Tool) -> Tool:
    """A function without nulls, and with a schema, which some providers demand."""
    made = {name: value for name, value in tool.items() if value is not None and (name != "strict" or value)}
    schema = made.get("parameters") or {}
    made["parameters"] = schema if "type" in schema else {"type": "object", "properties": {}, **schema}
    return made


def _stand_in(tool: Tool) -> Tool:
    form = tool.get("format") or {}
    grammar = (
        form.get("definition") and f"The input must follow this {form.get('syntax', '')} grammar:\n{form['definition']}"
    )
    text = "\n\n".join(part for part in (tool.get("description"), grammar) if part)
    schema = {
        "type": "object",
        "properties": {CUSTOM_ARGUMENT: {"type": "string"}},
        "required": [CUSTOM_ARGUMENT],
        "additionalProperties": False,
    }
    return {"type": "function", "name": tool.get("name"), "description": text, "parameters": schema}


def allowed(tools: list[Tool], choice: Any) -> tuple[list[Tool], Any]:
    """The tools and the choice, where the choice itself names the tools that are allowed."""
    if not (isinstance(choice, dict) and choice.get("type") == "allowed_tools"):
        return tools, choice
    # Azure and Chat Completions nest what the Responses API does not.
    inner = choice.get("allowed_tools") or choice
    names = {tool.get("name") or tool.get("type") for tool in inner.get("tools") or () if isinstance(tool, dict)}
    return [tool for tool in tools if (tool.get("name") or tool.get("type")) in names], inner.get("mode") or "auto"


def prepared_choice(choice: Any, manners: Manners, losses: Losses) -> Any:
    """The choice in the form that the library takes; None for the default, or for a tool that it does not know."""
    if choice is None or choice in ("auto", "none", "required"):
        return choice
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind in ("function", "custom") and choice.get("name"):
        return {"type": "function", "name": choice["name"]}
    if kind in CHOSEN and manners.dialect is Dialect.MESSAGES:
        return None
    losses.lose("tool_choice", f"a tool choice of type '{kind}'")
    return None
