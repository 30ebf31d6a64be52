"""What can be done next with what an operation has made, for people and for tools that follow it."""

from __future__ import annotations

from typing import Any

_OF_A_RESPONSE = ("retrieveResponse", "cancelResponse", "listInputItems", "retrieveJob", "deleteResponse")
_OF_AN_ENDPOINT = (
    *("retrieveEndpoint", "updateEndpoint", "rotateSecret", "testEndpoint"),
    *("listDeliveries", "redeliver", "deleteEndpoint"),
)
_NEXT = {
    "createResponse": _OF_A_RESPONSE,
    "cancelResponse": ("retrieveResponse", "deleteResponse"),
    "deleteResponse": ("retrieveResponse",),
    "createEndpoint": _OF_AN_ENDPOINT,
    "deleteEndpoint": ("retrieveEndpoint",),
}


def links_of(operation_id: str) -> dict[str, Any]:
    """Links by the id of the operation that they lead to; each takes the `id` of the answer."""
    return {
        name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in _NEXT.get(operation_id, ())
    }
