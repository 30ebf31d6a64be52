"""What calls look like: bodies, and programs that send them."""

from __future__ import annotations

from typing import Any

BODIES: dict[str, dict[str, dict[str, Any]]] = {
    "CreateResponse": {
        "background": {
            "summary": "In the background",
            "value": {"model": "gpt-5.2", "input": "Tell me a story about a unicorn.", "background": True},
        },
        "streamed": {
            "summary": "In the background, and streamed from the start",
            "value": {
                "model": "gpt-5.2",
                "input": [{"role": "user", "content": "Tell me a story about a unicorn."}],
                "background": True,
                "stream": True,
                "metadata": {"order": "17"},
            },
        },
        "at once": {"summary": "Answered at once", "value": {"model": "gpt-5.2", "input": "Hello!"}},
    },
    "CancelResponses": {"two": {"summary": "Two of them", "value": {"ids": ["litellm_poll_1", "litellm_poll_2"]}}},
    "CreateWebhookEndpoint": {
        "all": {
            "summary": "Told of completed and failed ones",
            "value": {
                "name": "jobs of the search team",
                "url": "https://example.com/webhook",
                "event_types": ["response.completed", "response.failed"],
            },
        }
    },
    "TokenCountsBody": {"text": {"summary": "A text", "value": {"model": "gpt-5.2", "input": "Hello!"}}},
}
"""Examples of bodies, by the name of their model."""

_SDK = 'from openai import OpenAI\n\nclient = OpenAI(base_url="http://127.0.0.1:4000/v1", api_key="YOUR_KEY")\n'


def _curl(path: str, *options: str) -> dict[str, str]:
    lines = [f"curl http://127.0.0.1:4000{path}", "-H 'Authorization: Bearer YOUR_KEY'", *options]
    return {"lang": "Shell", "label": "curl", "source": " \\\n  ".join(lines)}


def _python(source: str) -> dict[str, str]:
    return {"lang": "Python", "label": "Python", "source": _SDK + source}


_JSON = "-H 'Content-Type: application/json'"

PROGRAMS: dict[str, list[dict[str, str]]] = {
    "createResponse": [
        _curl("/v1/responses", _JSON, """-d '{"model": "gpt-5.2", "input": "Hello!", "background": true}'"""),
        _python('job = client.responses.create(model="gpt-5.2", input="Hello!", background=True)\nprint(job.id)\n'),
    ],
    "retrieveResponse": [
        _curl("'/v1/responses/ID?wait=50'"),
        _python(
            'job = client.responses.retrieve("ID", extra_query={"wait": 50})\nprint(job.status, job.output_text)\n'
        ),
    ],
    "cancelResponse": [
        _curl("/v1/responses/ID/cancel", "-X POST"),
        _python('print(client.responses.cancel("ID").status)\n'),
    ],
    "deleteResponse": [
        _curl("/v1/responses/ID", "-X DELETE"),
        _python('client.responses.delete("ID")\n'),
    ],
    "listResponses": [_curl("'/v1/responses?ids=ID,ID&wait=50&until=any'")],
    "streamEvents": [_curl("/v1/events", "-N")],
    "listInputItems": [
        _curl("/v1/responses/ID/input_items"),
        _python('for item in client.responses.input_items.list("ID"):\n    print(item)\n'),
    ],
    "listModels": [_curl("/v1/models"), _python("print([model.id for model in client.models.list()])\n")],
}
"""Programs, by the id of their operation."""
