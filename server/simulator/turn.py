"""What the turn that a request makes says as text, whatever the dialect."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]


class Utterance(NamedTuple):
    """What was said at one place of a conversation; None where it does not count."""

    by_model: bool
    text: str | None


def turn_text(conversation: Sequence[Utterance]) -> str:
    """What the user, or the tools, said since the model last spoke."""
    said: list[str] = []
    for utterance in reversed(conversation):
        if utterance.by_model:
            break
        if utterance.text is not None:
            said.append(utterance.text)
    return "\n".join(reversed(said))


def parts_text(content: Any) -> str:
    """The text of a content that is a string or an array of parts, results of tools among them."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(text for part in parts if isinstance(part, dict) and (text := _part_text(part)) is not None)


def derived_id(reply_id: str, prefix: str, place: str) -> str:
    """An id for an item of a reply: always the same for the same place, so nothing needs to be kept."""
    stem = reply_id.replace("-", "_").rpartition("_")[2][:16]
    return f"{prefix}_{stem}{hashlib.sha256(f'{reply_id}/{place}'.encode()).hexdigest()[:34]}"


def _part_text(part: Json) -> str | None:
    if part.get("type") == "tool_result":
        return parts_text(part.get("content"))
    text = part.get("text")
    return text if isinstance(text, str) else None
