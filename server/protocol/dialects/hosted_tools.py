"""Tools that Anthropic runs itself: a web search, a code interpreter, the tools of MCP servers.

Sources: https://docs.claude.com/en/docs/agents-and-tools, the pages about these tools.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from server.protocol.dialects.losses import Losses
from server.protocol.dialects.tools import WEB_SEARCH

Tool = dict[str, Any]

_CODE, _MCP = "code-execution-2025-08-25", "mcp-client-2025-11-20"

_CHOICES = {"none": "none", "required": "any"}


def add(body: dict[str, Any], given: Iterable[Any], losses: Losses) -> tuple[str, ...]:
    """Add them to a request in Messages. Returns the trials that it takes part in by that."""
    betas = []
    for index, tool in enumerate(given):
        kind, where = tool.get("type"), f"tools[{index}]"
        if kind in WEB_SEARCH:
            _tools_of(body).append(_web_search(tool))
        elif kind == "code_interpreter":
            if isinstance(container := tool.get("container"), str) or (container or {}).get("file_ids"):
                losses.lose(where, "a container with files")
            _tools_of(body).append({"type": "code_execution_20250825", "name": "code_execution"})
            betas.append(_CODE)
        elif kind == "mcp" and _is_callable(tool, where, losses):
            body.setdefault("mcp_servers", []).append(_server(tool))
            _tools_of(body).append(_toolset(tool))
            betas.append(_MCP)
    return tuple(dict.fromkeys(betas))


def choose(body: dict[str, Any], choice: Any) -> None:
    """Say which tool is to be used, where the library knows of no tools or not of this one."""
    kind = choice.get("type") if isinstance(choice, dict) else choice
    name = "web_search" if kind in WEB_SEARCH else "code_execution" if kind == "code_interpreter" else None
    if name is not None:
        body["tool_choice"] = {"type": "tool", "name": name}
    elif kind in _CHOICES and body.get("tools"):
        body.setdefault("tool_choice", {"type": _CHOICES[kind]})


def _tools_of(body: dict[str, Any]) -> list[Tool]:
    tools: list[Tool] = body.setdefault("tools", [])
    return tools


def _web_search(tool: Tool) -> Tool:
    """In the version that every model with a search has."""
    made: Tool = {"type": "web_search_20250305", "name": "web_search"}
    if domains := (tool.get("filters") or {}).get("allowed_domains"):
        made["allowed_domains"] = domains
    if isinstance(place := tool.get("user_location"), dict):
        made["user_location"] = {name: value for name, value in place.items() if value is not None}
    return made


def _is_callable(tool: Tool, where: str, losses: Losses) -> bool:
    """Whether the provider can call the server: it knows no connectors, and asks nobody before it calls."""
    if not tool.get("server_url"):
        losses.lose(where, "a connector")
    elif tool.get("require_approval") != "never":
        losses.lose(f"{where}.require_approval", "the approval of calls")
    elif tool.get("headers"):
        losses.lose(f"{where}.headers", "further headers for an MCP server")
    else:
        return True
    return False


def _server(tool: Tool) -> Tool:
    made = {"type": "url", "url": tool["server_url"], "name": tool.get("server_label")}
    return made | ({"authorization_token": tool["authorization"]} if tool.get("authorization") else {})


def _toolset(tool: Tool) -> Tool:
    made: Tool = {"type": "mcp_toolset", "mcp_server_name": tool.get("server_label")}
    allowed = tool.get("allowed_tools")
    names = allowed.get("tool_names") if isinstance(allowed, dict) else allowed
    if isinstance(names, list):
        made["default_config"] = {"enabled": False}
        made["configs"] = {str(name): {"enabled": True} for name in names}
    return made
