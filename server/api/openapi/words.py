"""What the description says of the whole."""

from __future__ import annotations

from server.api.operation import Tag

TITLE = "Pollux"
DESCRIPTION = """Background mode of OpenAI's Responses API, for every client and every model.

What OpenAI's API does not have is marked: `x-pollux-extension: true`.

**Paths.** What stands here under `/v1` is also served without that prefix, under `/openai/v1`, and as Azure's \
SDK asks: under `/openai` and `/openai/deployments/{model}`, where the model in the path goes before the \
body's. A slash at the end of a path changes nothing. All answer OPTIONS, and each GET answers HEAD.

**Keys** come as `Authorization: Bearer`, `api-key`, `x-litellm-api-key` or `x-api-key`. A key sees what was made \
under its name; the master key sees all.

**Bodies** may be compressed: `Content-Encoding: gzip`, `deflate` or `zstd`. A field that is null counts as left out. \
Fields that are not named here are passed on to the provider.

**Errors** always have the same four keys, and every answer has an `X-Request-Id`. The SDKs retry 408, 409, 429 and \
5xx on their own; 409 is never used. Any operation can refuse what is no sound request before it is looked at: 403 \
(no certificate where one is demanded), 408, 414, 417, 426 and 431.

**Events** are server-sent: `event: <type>`, and `data:` with one line of JSON, whose schema stands here. A comment \
comes after fifteen seconds of silence. A stream that must end before its last event is broken off, never ended \
cleanly."""

TAGS: dict[Tag, str] = {
    Tag.RESPONSES: "Create responses, and read, wait for, stream, cancel and delete them.",
    Tag.MODELS: "The models of the config.",
    Tag.EVENTS: "One feed of what happens to all of the caller's responses.",
    Tag.WEBHOOKS: "Endpoints that are told of the ends of responses, managed as OpenAI's SDK does it.",
    Tag.WATCHING: "What has become of responses, how the service does, and what was used.",
    Tag.OPERATING: "For orchestrators and Prometheus. These have no prefix.",
    Tag.PAGES: "For people, and for their tools. These have no prefix.",
}
