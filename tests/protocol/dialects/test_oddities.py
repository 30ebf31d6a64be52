"""Whatever a provider answers and a client asks: nothing breaks, and what comes out is in order."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BadRequest, InvalidType
from server.protocol import jsontext
from server.protocol.dialects.manners import Dialect, Manners
from server.protocol.dialects.request import translated as translated_request
from server.protocol.fold import Fold
from server.protocol.sse import ServerEvent
from tests.protocol.dialects.test_reply import is_well_formed, new_reply, text_of, translated
from tests.protocol.dialects.test_request import ALL
from tests.support.dialects import block, chunk, message_end, message_start
from tests.support.generated import moderate

Json = dict[str, Any]
Strategy = st.SearchStrategy[Any]

HALF = "\ud83d"
"""Half an emoji, as JavaScript leaves it that cuts a string in the middle."""
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**70, "", "0", "x", HALF, "\x00"),
    *([], [None], [{}], [[]], ["x"], {}, {"type": None}, {"a": [None]}, {"text": None}, {"type": "text", "text": 1}),
]
odd = st.sampled_from(ODD)
words = st.sampled_from(["Hi", " there", "", "{", '"a":1}', "é😀", HALF, "\x00", "[1]"])


def maybe(plausible: Strategy) -> Strategy:
    """Mostly what one expects."""
    return st.integers(0, 7).flatmap(lambda chance: plausible if chance else odd)


def some(**fields: Strategy) -> Strategy:
    """An object in which any field may be missing or odd."""
    return maybe(st.fixed_dictionaries({}, optional={name: maybe(value) for name, value in fields.items()}))


def whole(**fields: Strategy) -> Strategy:
    """An object with all of its fields, any of which may be odd."""
    return maybe(st.fixed_dictionaries({name: maybe(value) for name, value in fields.items()}))


def many(item: Strategy, most: int = 3) -> Strategy:
    return st.lists(item, max_size=most)


def any_of(*values: Any) -> Strategy:
    return st.sampled_from(values)


counts = any_of(0, 3, 7)
texts = maybe(words)
ids = any_of("a", "b", "", None)
indexes = any_of(0, 0, 1, 2, None)
usages = some(
    prompt_tokens=counts,
    completion_tokens=counts,
    total_tokens=counts,
    prompt_tokens_details=some(cached_tokens=counts),
)
parts = some(type=any_of("text", "thinking", "new"), text=words, thinking=many(some(type=any_of("text"), text=words)))
called = some(name=any_of("f", "g", ""), arguments=words, input=words)
calls = some(id=ids, index=indexes, type=any_of("function", "custom"), function=called, custom=called)
deltas = some(
    role=any_of("assistant"),
    content=words | many(parts),
    reasoning_content=words,
    reasoning=words,
    refusal=words,
    tool_calls=many(calls),
    function_call=called,
    audio=some(transcript=words),
    images=many(some(image_url=some(url=words | any_of("data:image/png;base64,AAAA")))),
    annotations=many(some(type=any_of("url_citation"), url_citation=some(url=words, start_index=counts, title=words))),
)
choices = some(
    index=any_of(0, 0, None, 1),
    delta=deltas,
    message=deltas,
    finish_reason=any_of(None, None, None, "stop", "length", "new"),
    logprobs=some(content=many(some(token=words, logprob=counts))),
    usage=usages,
)
chunks = some(
    id=ids,
    object=any_of("chat.completion.chunk"),
    model=any_of("m"),
    choices=many(choices),
    usage=usages,
    x_groq=some(usage=usages),
    citations=many(words),
    search_results=many(some(url=words, title=words)),
)

blocks = some(
    type=any_of("text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "mcp_tool_use", "new")
    | any_of("web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result", "mcp_tool_result"),
    id=ids,
    tool_use_id=ids,
    name=any_of("f", "web_search", "web_fetch", "code_execution"),
    server_name=words,
    text=words,
    thinking=words,
    signature=words,
    data=words,
    input=some(query=words, code=words, url=words),
    citations=many(some(type=any_of("web_search_result_location", "char_location"), url=words, cited_text=words)),
    content=words | many(some(type=any_of("text", "web_search_result"), text=words, url=words)) | some(stdout=words),
    is_error=any_of(True, False),
)
block_deltas = some(
    type=any_of(
        *("text_delta", "thinking_delta", "signature_delta", "input_json_delta", "citations_delta", "new_delta")
    ),
    text=words,
    thinking=words,
    signature=words,
    partial_json=words,
    citation=some(type=any_of("web_search_result_location", "char_location"), url=words, title=words),
)
counted = some(input_tokens=counts, output_tokens=counts, cache_read_input_tokens=counts)
messages_events = (
    whole(type=any_of("message_start"), message=some(model=any_of("m"), usage=counted, content=many(blocks)))
    | whole(type=any_of("content_block_start"), index=indexes, content_block=blocks)
    | whole(type=any_of("content_block_delta"), index=indexes, delta=block_deltas)
    | whole(type=any_of("content_block_stop"), index=indexes)
    | whole(
        type=any_of("message_delta"),
        delta=some(stop_reason=any_of(None, "end_turn", "max_tokens", "new"), stop_details=some(explanation=words)),
        usage=counted,
    )
    | some(type=any_of("ping", "new", "message_stop"))
)
STREAMS = {Dialect.CHAT: chunks, Dialect.MESSAGES: messages_events}
BODIES = {
    Dialect.CHAT: chunks,
    Dialect.MESSAGES: some(type=any_of("message"), content=many(blocks), usage=counted, stop_reason=any_of("end_turn")),
}
each_dialect = pytest.mark.parametrize("dialect", list(STREAMS))


def is_in_order(events: list[Json]) -> None:
    """What a reader relies on, of a stream that may have been cut, or that ended with an error."""
    if events and "response" in events[-1] and events[-1]["response"]["status"] != "in_progress":
        is_well_formed(events)
        return
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert "error" not in kinds[:-1]
    said = kinds[:-1] if kinds[-1:] == ["error"] else kinds
    assert said[:2] == ["response.created", "response.in_progress"][: len(said)]
    fold = Fold()
    for event in events[2 : len(said)]:
        fold.apply(jsontext.loads(jsontext.dumps(event)))


@each_dialect
@moderate
@given(data=st.data())
def test_a_stream_of_odd_events_makes_a_stream_in_order(dialect: Dialect, data: st.DataObject) -> None:
    events = data.draw(st.lists(STREAMS[dialect], max_size=8))
    is_in_order(translated(dialect, events, "f"))


def ends_it(event: Any) -> bool:
    """Whether an event says that the answer has ended, or is none at all."""
    if not isinstance(event, dict):
        return True
    return event.get("type") in ("message_stop", "message_delta", "error") or bool(event.get("error"))


@each_dialect
@moderate
@given(data=st.data())
def test_no_odd_event_spoils_the_answer_around_it(dialect: Dialect, data: st.DataObject) -> None:
    between = data.draw(st.lists(STREAMS[dialect].filter(lambda event: not ends_it(event)), max_size=8))
    if dialect is Dialect.CHAT:
        events = [chunk({"content": "So "}), *between, chunk({"content": "fine"}, "stop")]
    else:
        first = block(5, {"type": "text", "text": ""}, {"type": "text_delta", "text": "So "})
        last = block(6, {"type": "text", "text": ""}, {"type": "text_delta", "text": "fine"})
        events = [message_start(), *first, *between, *last, *message_end("end_turn")]
    made = translated(dialect, events, "f")
    is_well_formed(made)
    assert text_of(made).startswith("So ")
    assert text_of(made).endswith("fine")


@each_dialect
@moderate
@given(data=st.data())
def test_an_odd_body_is_a_response_or_left_as_it_is(dialect: Dialect, data: st.DataObject) -> None:
    raw = json.dumps(data.draw(BODIES[dialect])).encode()
    answer = new_reply(dialect, "f").whole(raw)
    response = jsontext.loads(answer)
    assert answer == raw or (response["object"], isinstance(response["output"], list)) == ("response", True)


@each_dialect
@moderate
@given(raw=st.binary(max_size=40), name=st.sampled_from(["", "error", "message", "ping"]))
def test_bytes_of_any_kind_make_a_stream_in_order(dialect: Dialect, raw: bytes, name: str) -> None:
    reply = new_reply(dialect)
    made = [*reply.take([ServerEvent(name, raw, raw)]), *reply.end()]
    is_in_order([jsontext.loads(event.data) for event in made])


content = words | many(
    some(
        type=any_of("input_text", "output_text", "input_image", "input_file", "input_audio", "refusal", "new"),
        text=words,
        image_url=any_of("https://a.example/a.png", "data:image/png;base64,AAAA"),
        file_data=any_of("data:application/pdf;base64,AAAA", "AAAA"),
        file_url=any_of("https://a.example/a.pdf"),
        file_id=ids,
        filename=words,
        detail=any_of("auto"),
        input_audio=some(data=words, format=any_of("mp3")),
    )
)
items = some(
    type=any_of("message", "reasoning", "function_call", "function_call_output", "item_reference", "new")
    | any_of("custom_tool_call", "custom_tool_call_output", "mcp_call", "shell_call", "shell_call_output")
    | any_of("web_search_call", "computer_call", "apply_patch_call"),
    role=any_of("user", "assistant", "system", "developer"),
    content=content,
    summary=many(some(type=any_of("summary_text"), text=words)),
    encrypted_content=words,
    id=ids,
    call_id=ids,
    name=any_of("f", ""),
    namespace=words,
    arguments=words | some(a=words),
    input=words,
    output=content,
    error=words,
    action=some(type=words),
)
tools = some(
    type=any_of("function", "custom", "web_search", "namespace", "mcp", "code_interpreter", "file_search", "new"),
    name=any_of("f", "g"),
    description=words,
    parameters=some(type=any_of("object"), properties=some(a=some(type=any_of("string")))),
    strict=any_of(True, False),
    format=some(type=any_of("grammar"), syntax=words, definition=words),
    tools=many(some(type=any_of("function"), name=any_of("f"), parameters=some(type=any_of("object")))),
    filters=some(allowed_domains=many(words)),
    user_location=some(type=any_of("approximate"), city=words),
    server_label=words,
    server_url=any_of("https://a.example"),
    container=some(type=any_of("auto")),
    authorization=words,
    headers=some(a=words),
    allowed_tools=many(words),
    require_approval=any_of("never", "always"),
)
requests = st.fixed_dictionaries(
    {"model": any_of("claude-opus-4-6", "claude-3-haiku-20240307", "m"), "input": maybe(words | many(items))},
    optional={
        name: maybe(value)
        for name, value in {
            "instructions": words,
            "tools": many(tools),
            "tool_choice": any_of("auto", "required") | some(type=any_of("function", "allowed_tools", "custom")),
            "text": some(
                format=some(type=any_of("json_schema", "json_object", "text"), name=words, schema=some(a=words))
            ),
            "reasoning": some(effort=any_of("low", "high", "none", "new"), summary=any_of("auto")),
            "temperature": any_of(0, 0.5),
            "top_p": any_of(0, 0.5),
            "max_output_tokens": any_of(1, 2000),
            "max_tokens": any_of(1, 2000),
            "stream": any_of(True, False),
            "stream_options": some(include_obfuscation=any_of(True)),
            "metadata": some(a=words),
            "include": many(words),
            "parallel_tool_calls": any_of(True, False),
            "truncation": any_of("auto"),
            "stop": words | many(words),
            "thinking": some(type=any_of("enabled", "adaptive", "disabled"), budget_tokens=counts),
            "top_logprobs": counts,
            "user": words,
            "seed": counts,
            "previous_response_id": ids,
            "context_management": many(some(type=words)),
        }.items()
    },
)


@pytest.mark.parametrize("drops", [False, True], ids=["refusing", "dropping"])
@pytest.mark.parametrize("manners", ALL, ids=lambda manners: manners.provider)
@moderate
@given(request=requests)
def test_an_odd_request_is_translated_or_refused(manners: Manners, drops: bool, request: Json) -> None:
    given_text = json.dumps(request).encode()
    request = jsontext.loads(given_text)
    refusal: BadRequest | None = None
    try:
        told = translated_request(request, replace(manners, drops=drops))
    except BadRequest as error:
        refusal = error
    else:
        assert isinstance(told.body["messages"], list)
        assert jsontext.loads(jsontext.dumps(told.body))
    assert refusal is None or (refusal.status, bool(refusal.param)) == (400, True)
    assert jsontext.dumps(request) == jsontext.dumps(jsontext.loads(given_text)), "it is only read"


THOUGHT = {"type": "content_block_start", "index": None, "content_block": {"type": "thinking"}}


LITTLE: list[Any] = [7, [], {}, [None], [[]], [{"type": "text", "text": None}], None]
NO_CHOICES: list[Any] = [True, [None], {"a": 1}, [{"delta": None}], [{"delta": "x"}]]
NOTHING: list[tuple[Dialect, Json]] = [
    *((Dialect.CHAT, {"choices": value}) for value in NO_CHOICES),
    *((Dialect.CHAT, chunk({"tool_calls": value})) for value in LITTLE),
    *((Dialect.CHAT, chunk({"content": value})) for value in LITTLE),
    *((Dialect.CHAT, chunk({name: [3]})) for name in ("reasoning", "refusal", "annotations", "audio")),
    *((Dialect.CHAT, {name: 5, "choices": []}) for name in ("usage", "x_groq", "citations", "search_results")),
    *((Dialect.CHAT, {"choices": [{"delta": {}, "finish_reason": value}]}) for value in LITTLE),
    (Dialect.CHAT, {**chunk({"content": "other"}), "choices": [{"index": "1", "delta": {"content": "other"}}]}),
    *((Dialect.MESSAGES, {"type": name}) for name in ("content_block_start", "content_block_delta", "new", None)),
    *((Dialect.MESSAGES, {"type": "content_block_stop", "index": index}) for index in LITTLE),
    *((Dialect.MESSAGES, {**THOUGHT, "content_block": value}) for value in LITTLE),
    (Dialect.MESSAGES, {"type": "content_block_delta", "index": 9, "delta": {"type": "text_delta", "text": "x"}}),
    (Dialect.MESSAGES, {**THOUGHT, "content_block": {"type": "mcp_tool_use", "id": ["a"]}}),
]


@pytest.mark.parametrize(("dialect", "odd_event"), NOTHING)
def test_an_event_that_says_nothing_changes_nothing(dialect: Dialect, odd_event: Json) -> None:
    if dialect is Dialect.CHAT:
        before, after = [chunk({"content": "Hi"})], [chunk({"content": " there"}, "stop")]
    else:
        said = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Hi there"})
        before, after = [message_start(), *said], message_end("end_turn")
    assert translated(dialect, [*before, odd_event, *after]) == translated(dialect, [*before, *after])


def test_a_block_of_thinking_without_thoughts_and_without_an_end_is_an_empty_item() -> None:
    said = block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Hi"})
    events = translated(Dialect.MESSAGES, [message_start(), THOUGHT, *said, *message_end("end_turn")])
    is_well_formed(events)
    thought, message = events[-1]["response"]["output"]
    assert (thought["type"], message["content"][0]["text"]) == ("reasoning", "Hi")
    assert not any(part["text"] for part in thought["summary"])


def test_an_end_without_a_beginning_is_an_empty_answer() -> None:
    events = translated(Dialect.MESSAGES, message_end("end_turn"))
    is_well_formed(events)
    assert events[-1]["response"]["output"] == []


def test_half_an_emoji_is_replaced() -> None:
    events = translated(Dialect.CHAT, [chunk({"content": f"Hi {HALF}"}), chunk({"content": "😀"}, "stop")])
    assert text_of(events) == "Hi �😀"


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("input", {"input": 5}),
        ("input[0]", {"input": ["x"]}),
        ("input[0].content[0]", {"input": [{"role": "user", "content": [None]}]}),
        ("input[0].type", {"input": [{"type": [], "role": "user"}]}),
        ("input[0].summary[0].text", {"input": [{"type": "reasoning", "summary": [{"text": 5}]}]}),
        ("tools", {"tools": {}}),
        ("tools[0]", {"tools": [None]}),
        ("tools[0].format", {"tools": [{"type": "custom", "name": "f", "format": "text"}]}),
        ("tool_choice", {"tool_choice": 5}),
        ("include", {"include": True}),
        ("reasoning", {"reasoning": "high"}),
        ("text.format", {"text": {"format": "json"}}),
        ("max_output_tokens", {"max_output_tokens": "many"}),
        ("stream", {"stream": "yes"}),
    ],
)
def test_a_field_of_another_type_is_refused_by_its_place(param: str, fields: Json) -> None:
    for manners in ALL:
        with pytest.raises(InvalidType, match=re.escape(f"Invalid type for '{param}': expected ")) as refused:
            translated_request({"model": "m", "input": "Hi", **fields}, manners)
        assert (refused.value.status, refused.value.param) == (400, param)
