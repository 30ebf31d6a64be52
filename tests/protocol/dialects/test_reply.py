"""Answers in other dialects become Responses events: the same text, reasoning, calls, usage and end."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from server.protocol import jsontext
from server.protocol.dialects.manners import Dialect
from server.protocol.dialects.reply import Reply
from server.protocol.fold import Fold, dumps
from server.protocol.sse import ServerEvent
from tests.support.dialects import (
    Said,
    block,
    chat_usage,
    chunk,
    load,
    message_end,
    message_start,
    said_in_chat,
    said_in_messages,
    said_in_response,
)

Json = dict[str, Any]

CHAT = (
    *("alibaba-tool-call", "azure-model-router.1", "deepseek-reasoning", "groq-tool-call", "mistral-reasoning"),
    *("mistral-tool-call", "openai-text", "perplexity-citations", "xai-tool-call"),
    "cerebras-structured-output-tools.1",
)
MESSAGES = (
    *("anthropic-clear-thinking.1", "anthropic-fallback", "anthropic-json-output-format.1", "anthropic-mcp.1"),
    *("anthropic-message-delta-input-tokens", "anthropic-refusal", "anthropic-text", "anthropic-tool-no-args"),
    *("anthropic-web-search-tool.1", "duplicate-message-start"),
)


def new_reply(dialect: Dialect, *custom_tools: str) -> Reply:
    return Reply(dialect, "resp_1", "0a", 1771000000, frozenset(custom_tools))


def translated(dialect: Dialect, events: list[Json], *custom_tools: str, ended: bool = True) -> list[Json]:
    """What a stream of these events becomes."""
    reply = new_reply(dialect, *custom_tools)
    made = [one for event in events for one in reply.take([server_event(event)])]
    made += reply.end() if ended else []
    return [jsontext.loads(event.data) for event in made]


def server_event(payload: Json) -> ServerEvent:
    data = json.dumps(payload).encode()
    return ServerEvent("", data, b"data: %b\n\n" % data)


def whole(dialect: Dialect, answer: Json) -> Json:
    response: Json = orjson.loads(new_reply(dialect).whole(json.dumps(answer).encode()))
    return response


def is_well_formed(events: list[Json]) -> None:
    """What every reader of a stream relies on."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert [event["type"] for event in events].count(events[-1]["type"]) == 1
    added = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    done = [event["output_index"] for event in events if event["type"] == "response.output_item.done"]
    assert added == sorted(set(added)) == list(range(len(added)))
    assert sorted(done) == added
    final = events[-1]["response"]
    fold = Fold()
    for event in events[2:-1]:
        fold.apply(jsontext.loads(jsontext.dumps(event)))
    assert jsontext.loads(dumps(fold.output)) == final["output"], "the pieces add up to the whole"
    ids = [item["id"] for item in final["output"]]
    assert len(set(ids)) == len(ids)
    assert all(before["type"] != "response.completed" for before, _ in pairwise(events))


def text_of(events: list[Json]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


@pytest.mark.parametrize("name", CHAT)
def test_a_recording_of_chat_completions_says_the_same(name: str, real_recordings: Path) -> None:
    chunks = load(real_recordings / "chat" / f"{name}.jsonl")
    events = translated(Dialect.CHAT, chunks)
    is_well_formed(events)
    assert said_in_response(events[-1]["response"]) == said_in_chat(chunks)
    assert events[-1]["type"] == "response.completed"


@pytest.mark.parametrize("name", MESSAGES)
def test_a_recording_of_messages_says_the_same(name: str, real_recordings: Path) -> None:
    recorded = load(real_recordings / "messages" / f"{name}.jsonl")
    events = translated(Dialect.MESSAGES, recorded)
    is_well_formed(events)
    assert said_in_response(events[-1]["response"]) == said_in_messages(recorded)
    refused = name == "anthropic-refusal"
    assert events[-1]["type"] == ("response.incomplete" if refused else "response.completed")


@pytest.mark.parametrize(
    ("folder", "name"), [*(("chat", name) for name in CHAT), *(("messages", name) for name in MESSAGES)]
)
def test_a_stream_that_is_cut_anywhere_before_its_reason_has_no_end(
    folder: str, name: str, real_recordings: Path
) -> None:
    recorded = load(real_recordings / folder / f"{name}.jsonl")
    dialect = Dialect(folder)
    reasons = [
        index
        for index, event in enumerate(recorded)
        if any(choice.get("finish_reason") for choice in event.get("choices") or ())
        or (event.get("delta") or {}).get("stop_reason")
    ]
    for cut in {1, reasons[0] // 2, reasons[0]}:
        assert not any(
            "output" in e.get("response", {}) and e["response"]["status"] != "in_progress"
            for e in translated(dialect, recorded[:cut])
        )


def test_perplexitys_sources_become_annotations_with_their_place() -> None:
    sources = {"citations": ["https://a.example", "https://b.example"]}
    found = {"search_results": [{"title": "B", "url": "https://b.example"}]}
    chunks = [
        {**chunk({"content": "So it is [2]"}), **sources},
        {**chunk({"content": "."}, "stop"), **sources, **found},
    ]
    events = translated(Dialect.CHAT, chunks)
    is_well_formed(events)
    [message] = events[-1]["response"]["output"]
    first, second = message["content"][0]["annotations"]
    assert first == {
        "type": "url_citation",
        "url": "https://a.example",
        "title": "",
        "start_index": 13,
        "end_index": 13,
    }
    assert (second["url"], second["title"]) == ("https://b.example", "B") or second["url"] == "https://b.example"
    assert (second["start_index"], second["end_index"]) == (9, 12)
    assert [e["annotation"] for e in events if e["type"].endswith("annotation.added")] == [first, second]


def test_annotations_of_chat_keep_their_place() -> None:
    cited = {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
    annotation = {"type": "url_citation", "url_citation": cited}
    events = translated(Dialect.CHAT, [chunk({"content": "Hi.", "annotations": [annotation]}, "stop")])
    assert events[-1]["response"]["output"][0]["content"][0]["annotations"] == [{"type": "url_citation", **cited}]


def test_probabilities_of_tokens_are_told_with_their_text_and_at_the_end() -> None:
    tokens = [{"token": text, "logprob": -0.5, "bytes": [97], "top_logprobs": []} for text in ("a", "b")]
    chunks = [chunk({"content": one["token"]}, logprobs={"content": [one]}) for one in tokens]
    events = translated(Dialect.CHAT, [*chunks, chunk({}, "stop")])
    is_well_formed(events)
    assert [e["logprobs"] for e in events if e["type"] == "response.output_text.delta"] == [[tokens[0]], [tokens[1]]]
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == tokens


def test_a_refusal_stays_a_refusal() -> None:
    events = translated(Dialect.CHAT, [chunk({"refusal": "I can't"}), chunk({"refusal": "."}), chunk({}, "stop")])
    is_well_formed(events)
    assert events[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "I can't."}]


@pytest.mark.parametrize("ids", [("a", "a"), ("a", None), ("a", ""), (None, None)])
@pytest.mark.parametrize("index", [0, None])
def test_a_tool_call_in_pieces_is_one_whatever_names_its_pieces(ids: tuple[Any, Any], index: int | None) -> None:
    pieces = [{"name": "f", "arguments": '{"a"'}, {"arguments": ":1}"}]
    calls = [{"id": one, "index": index, "function": piece} for one, piece in zip(ids, pieces, strict=True)]
    told = [chunk({"tool_calls": [call]}) for call in calls]
    events = translated(Dialect.CHAT, [*told, chunk({}, "tool_calls"), chat_usage(1, 2)])
    is_well_formed(events)
    [call] = events[-1]["response"]["output"]
    assert (call["name"], call["arguments"]) == ("f", '{"a":1}')
    assert call["call_id"]


@pytest.mark.parametrize("indexes", [(0, 1), (0, 0), (None, None)])
def test_two_tool_calls_are_two_whatever_their_indexes(indexes: tuple[Any, Any]) -> None:
    calls = [
        {"id": name, "index": index, "function": {"name": name, "arguments": "{}"}}
        for name, index in zip("fg", indexes, strict=True)
    ]
    events = translated(Dialect.CHAT, [chunk({"tool_calls": calls}, "tool_calls")])
    is_well_formed(events)
    assert [(call["name"], call["call_id"]) for call in events[-1]["response"]["output"]] == [("f", "f"), ("g", "g")]


def test_a_signature_of_googles_is_kept_as_reasoning_before_its_call() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}}
    call["extra_content"] = {"google": {"thought_signature": "sig"}}
    events = translated(Dialect.CHAT, [chunk({"tool_calls": [call]}, "tool_calls")])
    is_well_formed(events)
    thought, made = events[-1]["response"]["output"]
    assert (thought["type"], thought["encrypted_content"], made["type"]) == ("reasoning", "sig", "function_call")


def test_arguments_that_come_whole_are_told_as_a_delta_too() -> None:
    call = {"id": "a", "index": 0, "function": {"name": "f", "arguments": '{"a":1}'}}
    events = translated(Dialect.CHAT, [chunk({"tool_calls": [call]}, "tool_calls")])
    deltas = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert deltas == ['{"a":1}']


@pytest.mark.parametrize("dialect", [Dialect.CHAT, Dialect.MESSAGES])
def test_calls_of_a_function_that_stands_for_a_custom_tool_are_told_as_custom_calls(dialect: Dialect) -> None:
    arguments = json.dumps({"input": 'say "hi"\n'})
    if dialect is Dialect.CHAT:
        pieces = [arguments[:7], arguments[7:]]
        calls = [{"index": 0, "id": "c", "function": {"name": "shell", "arguments": pieces[0]}}]
        calls.append({"index": 0, "function": {"arguments": pieces[1]}})
        stream = [*(chunk({"tool_calls": [call]}) for call in calls), chunk({}, "tool_calls")]
    else:
        use = {"type": "tool_use", "id": "c", "name": "shell", "input": {}}
        stream = [message_start(), *block(0, use, {"type": "input_json_delta", "partial_json": arguments})]
        stream += message_end("tool_use")
    events = translated(dialect, stream, "shell")
    is_well_formed(events)
    [call] = events[-1]["response"]["output"]
    assert call.items() >= {"type": "custom_tool_call", "name": "shell", "input": 'say "hi"\n', "call_id": "c"}.items()
    assert not any("function_call" in event["type"] for event in events)


@pytest.mark.parametrize(
    ("reason", "status", "why"),
    [
        ("stop", "completed", None),
        ("eos", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("model_length", "incomplete", "max_output_tokens"),
        ("MAX_TOKENS", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        ("SAFETY", "incomplete", "content_filter"),
        ("error", "failed", None),
        ("insufficient_system_resource", "failed", None),
    ],
)
def test_each_reason_ends_a_response_as_openai_would(reason: str, status: str, why: str | None) -> None:
    final = translated(Dialect.CHAT, [chunk({"content": "Hi"}), chunk({}, reason), chat_usage(3, 4)])[-1]
    assert final["type"] == f"response.{status}"
    response = final["response"]
    assert (response["incomplete_details"] or {}).get("reason") == why
    assert (response["error"] is not None) == (status == "failed")
    assert response["usage"]["output_tokens"] == 4


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("end_turn", "completed"),
        ("stop_sequence", "completed"),
        ("something_new", "completed"),
        ("max_tokens", "incomplete"),
        ("model_context_window_exceeded", "incomplete"),
        ("pause_turn", "incomplete"),
        ("refusal", "incomplete"),
    ],
)
def test_each_stop_reason_ends_a_response(reason: str, status: str) -> None:
    text = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Hi"})
    final = translated(Dialect.MESSAGES, [message_start(), *text, *message_end(reason)])[-1]
    assert final["type"] == f"response.{status}"


def test_tokens_of_a_cache_are_in_the_usage_and_later_counts_replace_earlier_ones() -> None:
    start = message_start(cache_read_input_tokens=100, cache_creation_input_tokens=20)
    text = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Hi"})
    usage = translated(Dialect.MESSAGES, [start, *text, *message_end("end_turn")])[-1]["response"]["usage"]
    assert usage["input_tokens"] == 129
    assert usage["input_tokens_details"] == {"cached_tokens": 100, "cache_write_tokens": 20}
    assert (usage["output_tokens"], usage["total_tokens"]) == (7, 136)


def test_usage_comes_from_wherever_a_provider_puts_it() -> None:
    told = {"prompt_tokens": 5, "completion_tokens": 6, "prompt_cache_hit_tokens": 2}
    places: list[Json] = [{"usage": told}, {"x_groq": {"usage": told}}]
    streams = [[chunk({"content": "Hi"}), {**chunk({}, "stop"), **place}] for place in places]
    streams.append([chunk({"content": "Hi"}), chunk({}, "stop", usage=told)])
    for stream in streams:
        usage = translated(Dialect.CHAT, stream)[-1]["response"]["usage"]
        assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (5, 6, 11)
        assert usage["input_tokens_details"]["cached_tokens"] == 2


def test_thinking_keeps_its_signature_and_hidden_thinking_its_data() -> None:
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    deltas = ({"type": "thinking_delta", "thinking": "Hm"}, {"type": "signature_delta", "signature": "sig"})
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    stream = [message_start(), *block(0, thinking, *deltas), *block(1, hidden), *message_end("end_turn")]
    events = translated(Dialect.MESSAGES, stream)
    is_well_formed(events)
    first, second = events[-1]["response"]["output"]
    assert (first["summary"][0]["text"], first["encrypted_content"]) == ("Hm", "sig")
    assert (second["summary"], second["encrypted_content"]) == ([], "xyz")


def test_tools_that_the_provider_ran_itself_become_items() -> None:
    mcp = {"type": "mcp_tool_use", "id": "m", "name": "echo", "server_name": "s", "input": {}}
    outcome = {"type": "mcp_tool_result", "tool_use_id": "m", "is_error": False}
    outcome["content"] = [{"type": "text", "text": "hi"}]
    code = {"type": "server_tool_use", "id": "c", "name": "code_execution", "input": {"code": "1+1"}}
    result = {"type": "code_execution_result", "stdout": "2\n", "stderr": "", "return_code": 0, "content": []}
    ran = {"type": "code_execution_tool_result", "tool_use_id": "c", "content": result}
    fetch = {"type": "server_tool_use", "id": "f", "name": "web_fetch", "input": {"url": "https://a.example"}}
    fetched = {"type": "web_fetch_tool_result", "tool_use_id": "f", "content": {"type": "web_fetch_result"}}
    blocks = [block(n, one) for n, one in enumerate((code, ran, fetch, fetched))]
    blocks += [block(4, mcp, {"type": "input_json_delta", "partial_json": '{"a":1}'}), block(5, outcome)]
    blocks += [block(6, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Done"})]
    events = translated(Dialect.MESSAGES, [message_start(), *(e for b in blocks for e in b), *message_end("end_turn")])
    is_well_formed(events)
    code_item, page, call, message = events[-1]["response"]["output"]
    assert code_item["code"] == "1+1"
    assert code_item["outputs"] == [{"type": "logs", "logs": "2\n"}]
    assert page["action"] == {"type": "open_page", "url": "https://a.example"}
    assert (call["name"], call["server_label"], call["arguments"], call["output"]) == ("echo", "s", '{"a":1}', "hi")
    assert message["content"][0]["text"] == "Done"


@pytest.mark.parametrize(
    ("dialect", "event"),
    [
        (Dialect.CHAT, {"error": {"message": "Too busy", "type": "overloaded", "code": 503}}),
        (Dialect.CHAT, {"object": "error", "message": "Too busy", "code": 503}),
        (Dialect.MESSAGES, {"type": "error", "error": {"type": "overloaded_error", "message": "Too busy"}}),
    ],
)
def test_an_error_in_the_stream_is_an_error_event_and_the_last(dialect: Dialect, event: Json) -> None:
    events = translated(dialect, [event, chunk({"content": "Hi"}, "stop")])
    assert [one["type"] for one in events] == ["error"]
    assert events[0]["error"]["message"] == "Too busy"


@pytest.mark.parametrize("junk", [b"no JSON", b"[1]", b'"text"', b"null"])
def test_an_event_that_is_no_object_is_an_error(junk: bytes) -> None:
    [made] = new_reply(Dialect.CHAT).take([ServerEvent("", junk, junk)])
    assert made.name == "error"


def test_pieces_of_a_call_belong_together_whatever_ids_they_bring() -> None:
    # vLLM has sent a new id with each piece, others an id only with the second one.
    pieces = [("id-1", "f", ""), ("id-2", None, '{"a"'), ("id-3", None, ":1}")]
    calls = [
        {"index": 0, "id": one, "type": "function", "function": {"name": name, "arguments": text}}
        for one, name, text in pieces
    ]
    told = [chunk({"tool_calls": [call]}) for call in calls]
    events = translated(Dialect.CHAT, [*told, chunk({}, "tool_calls"), chat_usage(1, 2)])
    is_well_formed(events)
    assert said_in_response(events[-1]["response"]).calls == [("f", '{"a":1}')]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm", "signature": ""}]},
    ],
)
def test_thinking_beside_the_text_is_reasoning(part: Json) -> None:
    content = [part, {"type": "text", "text": "Hi"}]
    events = translated(Dialect.CHAT, [chunk({"content": content}, "stop"), chat_usage(1, 2)])
    is_well_formed(events)
    assert said_in_response(events[-1]["response"]) == Said("Hi", "Hm", [], (1, 2))


def test_a_generated_image_is_an_item() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    other = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    events = translated(Dialect.CHAT, [chunk({"content": "Here:", "images": [image, other, None]}), chunk({}, "stop")])
    is_well_formed(events)
    items = events[-1]["response"]["output"]
    assert [item["type"] for item in items] == ["message", "image_generation_call"]
    assert (items[1]["id"][:3], items[1]["status"], items[1]["result"]) == ("ig_", "completed", "AAAA")
    [added] = [event["item"] for event in events if event.get("output_index") == 1 and "added" in event["type"]]
    assert (added["status"], added["result"]) == ("in_progress", None)


def test_an_emoji_that_was_cut_in_two_comes_out_whole() -> None:
    pieces = ["a\ud83d", "\ude00b", "c\ud83d", "d", "\ud83d"]
    events = translated(Dialect.CHAT, [*(chunk({"content": piece}) for piece in pieces), chunk({}, "stop")])
    is_well_formed(events)
    assert text_of(events) == "a😀bc\ufffdd"


def test_calls_without_an_id_get_one_that_no_other_answer_has() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = [server_event(chunk({"tool_calls": [call]}, "tool_calls"))]
    replies = [Reply(Dialect.CHAT, f"resp_{seed}", seed, 1, frozenset()) for seed in ("0a", "0b")]
    ids = [orjson.loads([*reply.take(answer), *reply.end()][-1].data)["response"] for reply in replies]
    assert len({response["output"][0]["call_id"] for response in ids}) == 2


def _calls_of(dialect: Dialect, name: str, arguments: str) -> list[Json]:
    """An answer that calls one tool."""
    if dialect is Dialect.CHAT:
        call = {"index": 0, "id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
        return [chunk({"tool_calls": [call]}, "tool_calls")]
    delta = {"type": "input_json_delta", "partial_json": arguments}
    content = {"type": "tool_use", "id": "c", "name": name, "input": {}}
    return [message_start(), *block(0, content, delta), *message_end("tool_use")]


@pytest.mark.parametrize("dialect", [Dialect.CHAT, Dialect.MESSAGES])
def test_only_tools_of_a_namespace_are_told_with_one(dialect: Dialect) -> None:
    def called(name: str) -> Json:
        reply = Reply(dialect, "resp_1", "0a", 1, frozenset({"crm--note"}), frozenset({"crm--find", "crm--note"}))
        told = [server_event(event) for event in _calls_of(dialect, name, '{"input":"x"}')]
        events = [orjson.loads(event.data) for event in [*reply.take(told), *reply.end()]]
        is_well_formed(events)
        item: Json = events[-1]["response"]["output"][0]
        return item

    assert [called("crm--find")[key] for key in ("type", "namespace", "name")] == ["function_call", "crm", "find"]
    assert [called("crm--note")[key] for key in ("namespace", "name", "input")] == ["crm", "note", "x"]
    plain = called("mcp--files--read")
    assert (plain["name"], "namespace" in plain) == ("mcp--files--read", False)


TEXT: Json = {"type": "text", "text": ""}
CALLS: list[Json] = [{"type": "tool_use", "id": name, "name": name, "input": {}} for name in ("f", "g")]


def _begins(index: Any, content: Json, **delta: Any) -> list[Json]:
    return block(index, content, delta)[:-1]


def _more(index: int, text: str) -> Json:
    delta = {"type": "input_json_delta", "partial_json": text}
    return {"type": "content_block_delta", "index": index, "delta": delta}


@pytest.mark.parametrize("indexes", [(0, 1, 2, 3), (0, 0, 0, 0), ("a", "b", "c", "d"), (None, None, None, None)])
def test_blocks_that_nobody_ends_have_ended_with_the_message(indexes: tuple[Any, ...]) -> None:
    events = translated(
        Dialect.MESSAGES,
        [
            message_start(),
            *_begins(indexes[0], TEXT, type="text_delta", text="one"),
            *_begins(indexes[1], CALLS[0], type="input_json_delta", partial_json='{"a":1}'),
            *_begins(indexes[2], CALLS[1], type="input_json_delta", partial_json='{"b":2}'),
            *_begins(indexes[3], TEXT, type="text_delta", text="two"),
            *message_end("end_turn"),
        ],
    )
    is_well_formed(events)
    assert said_in_response(events[-1]["response"])[:3] == ("onetwo", "", [("f", '{"a":1}'), ("g", '{"b":2}')])


def test_blocks_that_come_at_once_are_told_one_after_the_other() -> None:
    ends = [{"type": "content_block_stop", "index": index} for index in (1, 0)]
    events = translated(
        Dialect.MESSAGES,
        [
            message_start(),
            *(event for index in (0, 1) for event in block(index, CALLS[index])[:1]),
            *(_more(0, '{"a"'), _more(1, '{"b"'), _more(0, ":1}"), _more(1, ":2}")),
            *ends,
            *message_end("tool_use"),
        ],
    )
    is_well_formed(events)
    assert said_in_response(events[-1]["response"]).calls == [("f", '{"a":1}'), ("g", '{"b":2}')]


def test_a_message_that_ends_without_a_reason_has_ended_normally() -> None:
    said = block(0, TEXT, {"type": "text_delta", "text": "Hi"})
    events = translated(Dialect.MESSAGES, [message_start(), *said, {"type": "message_stop"}])
    is_well_formed(events)
    assert events[-1]["type"] == "response.completed"


def test_a_search_that_failed_is_a_finished_search() -> None:
    error = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}
    events = translated(
        Dialect.MESSAGES,
        [
            message_start(),
            *block(0, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}),
            *block(1, {"type": "web_search_tool_result", "tool_use_id": "s", "content": error}),
            *block(2, TEXT, {"type": "text_delta", "text": "Nothing."}),
            *message_end("end_turn"),
        ],
    )
    is_well_formed(events)
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["web_search_call", "message"]


def test_the_type_of_an_error_is_not_hidden_by_a_code_of_ours() -> None:
    error = {"type": "invalid_request_error", "message": "The image is broken."}
    [made] = translated(Dialect.MESSAGES, [{"type": "error", "error": error}])
    assert made["error"] == error


def test_done_ends_a_stream_at_once_even_one_without_a_reason() -> None:
    reply = new_reply(Dialect.CHAT)
    reply.take([server_event(chunk({"content": "Hi"}))])
    made = reply.take([ServerEvent("", b"[DONE]", b"data: [DONE]\n\n")])
    assert made[-1].name == "response.completed"
    assert reply.take([server_event(chunk({"content": "more"}))]) == []
    assert reply.end() == []


def test_a_whole_completion_is_read_like_a_stream() -> None:
    message = {
        "role": "assistant",
        "content": "Hi",
        "reasoning_content": "Hm",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}],
    }
    usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    answer = {"id": "x", "object": "chat.completion", "model": "m-1", "choices": [choice], "usage": usage}
    response = whole(Dialect.CHAT, answer)
    assert said_in_response(response) == Said("Hi", "Hm", [("f", "{}")], (5, 6))
    assert (response["id"], response["status"], response["model"]) == ("resp_1", "completed", "m-1")


def test_a_whole_message_is_read_like_a_stream() -> None:
    content = [
        {"type": "thinking", "thinking": "Hm", "signature": "sig"},
        {"type": "text", "text": "Hi", "citations": None},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"a": 1}},
    ]
    usage = {"input_tokens": 5, "output_tokens": 6}
    answer = {"type": "message", "model": "claude-x", "content": content, "stop_reason": "tool_use", "usage": usage}
    response = whole(Dialect.MESSAGES, answer)
    assert said_in_response(response) == Said("Hi", "Hm", [("f", '{"a":1}')], (5, 6))
    assert response["output"][0]["encrypted_content"] == "sig"


@pytest.mark.parametrize("raw", [b"", b"<html>", b'{"error":{"message":"no"}}', b"[]", b'{"object":"response"}'])
def test_an_answer_of_another_form_is_left_as_it_is(raw: bytes) -> None:
    assert new_reply(Dialect.CHAT).whole(raw) == raw
