"""Requests in other dialects: everything that the provider can be told is told, the rest is refused or left out."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from server.errors import BadRequest, Untranslatable
from server.protocol.dialects.manners import Dialect, Manners
from server.protocol.dialects.request import translated

Json = dict[str, Any]

OPENAI = Manners(Dialect.CHAT, "azure", full=True)
MISTRAL = Manners(Dialect.CHAT, "mistral", stream_usage=False, nine_letter_ids=True)
GEMINI = Manners(Dialect.CHAT, "gemini", signed_calls=True)
DEEPSEEK = Manners(Dialect.CHAT, "deepseek", json_schema=False, reasoning_back=True)
CLAUDE = Manners(Dialect.MESSAGES, "anthropic")
ALL = (OPENAI, MISTRAL, DEEPSEEK, CLAUDE)

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
FUNCTION = {"type": "function", "name": "f", "description": "d", "parameters": SCHEMA, "strict": True}


def asked(manners: Manners, model: Any = "claude-opus-4-6", **body: Any) -> Json:
    return translated({"model": model, "input": "hi", **body}, manners).body


def message(role: str, *content: Json) -> Json:
    return {"type": "message", "role": role, "content": list(content)}


def text(words: str) -> Json:
    return {"type": "input_text", "text": words}


@pytest.mark.parametrize("manners", ALL, ids=lambda manners: manners.provider)
def test_a_plain_request(manners: Manners) -> None:
    body = asked(manners, instructions="Be brief", stream=True)
    assert body["stream"] is True
    assert body["messages"][-1] == {"role": "user", "content": "hi"}
    if manners is CLAUDE:
        assert body["system"] == "Be brief"
        assert body["max_tokens"] == 32_000
        assert "cache_control" not in body, "nobody asked for it, and it costs"
    else:
        assert body["messages"][0] == {"role": "system", "content": "Be brief"}
        assert ("stream_options" in body) == manners.stream_usage


@pytest.mark.parametrize("manners", ALL, ids=lambda manners: manners.provider)
def test_nulls_mean_nothing(manners: Manners) -> None:
    names = ("instructions", "temperature", "tools", "tool_choice", "text", "reasoning", "max_output_tokens", "stream")
    assert asked(manners, **dict.fromkeys(names), previous_response_id=None, prompt=None) == asked(manners)


def test_the_limit_of_the_output_has_each_providers_name() -> None:
    assert asked(OPENAI, max_output_tokens=7)["max_completion_tokens"] == 7
    assert asked(MISTRAL, max_output_tokens=7)["max_tokens"] == 7
    assert asked(CLAUDE, max_output_tokens=7)["max_tokens"] == 7
    assert asked(replace(CLAUDE, most_tokens=500))["max_tokens"] == 500
    assert asked(CLAUDE, model="claude-3-haiku-20240307")["max_tokens"] == 4096


def test_fields_without_effect_go_only_to_whom_knows_them() -> None:
    fields = {"metadata": {"a": "b"}, "store": False, "user": "u", "safety_identifier": "s", "prompt_cache_key": "k"}
    assert fields.items() <= asked(OPENAI, **fields).items()
    assert asked(MISTRAL, **fields, truncation="auto", include=["x"], background=True) == asked(MISTRAL)
    assert asked(CLAUDE, **fields) == {**asked(CLAUDE), "metadata": {"user_id": "s"}}


def test_fields_that_only_chat_has_and_fields_that_nobody_knows_are_passed_on() -> None:
    fields = {"stop": ["x"], "seed": 3, "top_k": 4, "chat_template_kwargs": {"a": 1}}
    assert fields.items() <= asked(MISTRAL, **fields).items()
    body = asked(CLAUDE, stop="x", top_k=4)
    assert (body["stop_sequences"], body["top_k"]) == (["x"], 4)
    assert asked(OPENAI, top_logprobs=2).items() >= {"logprobs": True, "top_logprobs": 2}.items()


@pytest.mark.parametrize(
    ("manners", "field", "body"),
    [
        (MISTRAL, "tools[0]", {"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}),
        (CLAUDE, "tools[1]", {"tools": [FUNCTION, {"type": "image_generation"}]}),
        (MISTRAL, "tools[0]", {"tools": [{"type": "web_search"}]}),
        (DEEPSEEK, "text.format", {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}}),
        (CLAUDE, "text.format", {"text": {"format": {"type": "json_object"}}}),
        (CLAUDE, "seed", {"seed": 4}),
        (CLAUDE, "presence_penalty", {"presence_penalty": 0.5}),
        (MISTRAL, "prompt", {"prompt": {"id": "p"}}),
        (MISTRAL, "conversation", {"conversation": "c"}),
        (CLAUDE, "previous_response_id", {"previous_response_id": "resp_1"}),
        (MISTRAL, "input[0]", {"input": [{"type": "compaction", "encrypted_content": "x"}]}),
        (MISTRAL, "input[0]", {"input": [{"type": "item_reference", "id": "msg_1"}]}),
        (MISTRAL, "input[0].content[0]", {"input": [message("user", {"type": "input_image", "file_id": "f"})]}),
        (MISTRAL, "input[0].content[0]", {"input": [message("user", {"type": "input_file", "file_url": "https://a"})]}),
        (CLAUDE, "input[0].content[0]", {"input": [message("user", {"type": "input_audio", "input_audio": {}})]}),
        (MISTRAL, "tool_choice", {"tools": [FUNCTION], "tool_choice": {"type": "file_search"}}),
    ],
)
def test_what_changes_the_answer_and_cant_be_told_is_refused_or_dropped(
    manners: Manners, field: str, body: Json
) -> None:
    with pytest.raises(Untranslatable, match=f"'{manners.provider}'") as refused:
        asked(manners, **body)
    assert refused.value.param == field
    assert asked(replace(manners, drops=True), **body)["messages"] is not None
    root = field.split("[", maxsplit=1)[0].split(".", maxsplit=1)[0]
    assert asked(replace(manners, dropped=frozenset({root})), **body)["messages"] is not None


def test_images_and_files() -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"}
    file = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"}
    content = asked(OPENAI, input=[message("user", text("x"), picture, file)])["messages"][0]["content"]
    assert content[1] == {"type": "image_url", "image_url": {"url": picture["image_url"], "detail": "low"}}
    assert content[2] == {"type": "file", "file": {"filename": "a.pdf", "file_data": file["file_data"]}}
    content = asked(CLAUDE, input=[message("user", text("x"), picture, file)])["messages"][0]["content"]
    assert content[1]["source"] == {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    assert content[2]["source"] == {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}
    linked = {"type": "input_file", "file_url": "https://a.example/a.pdf"}
    content = asked(CLAUDE, input=[message("user", linked)])["messages"][0]["content"]
    assert content[0]["source"] == {"type": "url", "url": "https://a.example/a.pdf"}


def test_sound_and_stored_files_reach_a_provider_of_chat() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    stored = {"type": "input_file", "file_id": "file-1"}
    content = asked(OPENAI, input=[message("user", sound, text("x"), stored)])["messages"][0]["content"]
    assert content == [sound, {"type": "text", "text": "x"}, {"type": "file", "file": {"file_id": "file-1"}}]


HISTORY = [
    message("developer", text("rules")),
    {"role": "user", "content": "q"},
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Hm"}],
        "encrypted_content": "sig",
    },
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Let me see", "annotations": [], "logprobs": []}],
    },
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a":"1"}', "status": None},
    {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "f", "arguments": "{}", "status": "completed"},
    {"type": "function_call_output", "id": None, "call_id": "c1", "output": "r1", "status": None},
    {
        "type": "function_call_output",
        "call_id": "c2",
        "output": [text("r2"), {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}],
    },
]


def test_a_turn_with_tools_is_one_message_of_chat_with_its_calls() -> None:
    messages = asked(OPENAI, input=HISTORY, tools=[FUNCTION])["messages"]
    assert [one["role"] for one in messages] == ["developer", "user", "assistant", "tool", "tool", "user"]
    turn = messages[2]
    assert turn["content"] == "Let me see"
    assert [call["id"] for call in turn["tool_calls"]] == ["c1", "c2"]
    assert "reasoning_content" not in turn
    assert [(one["tool_call_id"], one["content"]) for one in messages[3:5]] == [("c1", "r1"), ("c2", "r2")]
    assert messages[5]["content"][0]["type"] == "image_url", "a tool's message takes no image"
    assert asked(DEEPSEEK, input=HISTORY, tools=[FUNCTION])["messages"][2]["reasoning_content"] == "Hm"
    assert asked(MISTRAL, input=HISTORY, tools=[FUNCTION])["messages"][0]["role"] == "system"


def test_a_turn_with_tools_keeps_its_signed_thinking_in_messages() -> None:
    body = asked(CLAUDE, input=HISTORY, tools=[FUNCTION])
    assert body["system"] == "rules"
    _, turn, outputs = body["messages"]
    assert [block["type"] for block in turn["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert turn["content"][0] == {"type": "thinking", "thinking": "Hm", "signature": "sig"}
    assert [block["tool_use_id"] for block in outputs["content"]] == ["c1", "c2"]


def test_thinking_without_a_signature_is_left_out() -> None:
    unsigned = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]}
    body = asked(CLAUDE, input=[{"role": "user", "content": "q"}, unsigned, {"role": "user", "content": "r"}])
    assert "thinking" not in str(body["messages"])


def test_a_refusal_in_the_history_is_what_the_model_said() -> None:
    said = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    for manners in ALL:
        messages = asked(manners, input=[{"role": "user", "content": "q"}, said, {"role": "user", "content": "r"}])
        assert "No." in str(messages["messages"][1]["content"])


def test_items_of_tools_that_a_provider_ran_are_passed_over_or_told_as_calls() -> None:
    searched = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    called = {"type": "mcp_call", "id": "mcp_1", "name": "echo", "arguments": "{}", "output": "hi", "server_label": "s"}
    shell = {"type": "local_shell_call", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}, "status": None}
    listed = {"type": "local_shell_call_output", "call_id": "c", "output": "a.txt"}
    for manners in ALL:
        history = [{"role": "user", "content": "q"}, searched, called, shell, listed, {"role": "user", "content": "r"}]
        told = str(asked(manners, input=history)["messages"])
        assert "echo" in told
        assert "local_shell" in told
        assert "a.txt" in told
        assert "search" not in told


@pytest.mark.parametrize(
    ("manners", "form"),
    [(OPENAI, r"[\w.:-]{1,40}"), (MISTRAL, r"[A-Za-z0-9]{9}"), (CLAUDE, r"[A-Za-z0-9_-]{1,64}")],
    ids=lambda value: getattr(value, "provider", ""),
)
@pytest.mark.parametrize("call_id", ["abc123XYZ", "call_0fypS1hVX", "functions.f:0", "c" * 90, "tool\ud83d", ""])
def test_ids_of_calls_fit_their_provider_in_the_call_and_in_its_output(
    manners: Manners, form: str, call_id: str
) -> None:
    call = {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": call_id, "output": "r"}
    messages = asked(manners, input=[{"role": "user", "content": "q"}, call, output])["messages"]
    if manners is CLAUDE:
        ids = [messages[1]["content"][0]["id"], messages[2]["content"][0]["tool_use_id"]]
    else:
        ids = [messages[1]["tool_calls"][0]["id"], messages[2]["tool_call_id"]]
    assert ids[0] == ids[1]
    assert re.fullmatch(form, ids[0])
    if re.fullmatch(form, call_id):
        assert ids[0] == call_id


def test_googles_signatures_come_back_with_their_calls_and_other_turns_say_that_they_have_none() -> None:
    signed = {"type": "reasoning", "summary": [], "encrypted_content": "sig"}
    history: list[Json] = [{"role": "user", "content": "q"}]
    for turn, thought in enumerate(([signed], [])):
        history += thought
        names = [f"c{turn}{number}" for number in range(2)]
        history += [{"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"} for name in names]
        history += [{"type": "function_call_output", "call_id": name, "output": "r"} for name in names]
    turns = [one["tool_calls"] for one in asked(GEMINI, input=history)["messages"] if one.get("tool_calls")]
    found = [
        [call.get("extra_content", {}).get("google", {}).get("thought_signature") for call in one] for one in turns
    ]
    assert found == [["sig", None], ["skip_thought_signature_validator", None]]
    assert "extra_content" not in str(asked(OPENAI, input=history))


def test_reasoning_goes_back_only_within_the_turn_that_it_was_for() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "r"}
    going_on: list[Json] = [{"role": "user", "content": "q"}, thought, call, output]
    assert "Hm" in str(asked(DEEPSEEK, input=going_on)["messages"])
    assert "Hm" not in str(asked(DEEPSEEK, input=[*going_on, {"role": "user", "content": "next"}])["messages"])


def test_an_answer_without_words_is_left_out() -> None:
    empty = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ""}]}
    history = [{"role": "user", "content": "q"}, empty, {"role": "user", "content": "r"}]
    for manners in ALL:
        messages = asked(manners, input=history)["messages"]
        assert {one["role"] for one in messages} == {"user"}


@pytest.mark.parametrize("choice", ["auto", "none", "required", {"type": "function", "name": "f"}])
@pytest.mark.parametrize("manners", ALL, ids=lambda manners: manners.provider)
def test_each_choice_among_tools(manners: Manners, choice: Any) -> None:
    body = asked(manners, tools=[FUNCTION], tool_choice=choice)
    if manners is CLAUDE:
        kinds = {"auto": "auto", "none": "none", "required": "any"}
        assert body["tool_choice"]["type"] == (kinds[choice] if isinstance(choice, str) else "tool")
    else:
        named = {"type": "function", "function": {"name": "f"}}
        assert body["tool_choice"] == (choice if isinstance(choice, str) else named)


def test_allowed_tools_are_the_only_ones_that_are_told() -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}
    for manners in ALL:
        body = asked(manners, tools=[FUNCTION, {**FUNCTION, "name": "g"}], tool_choice=choice)
        assert len(body["tools"]) == 1
        assert "'g'" in str(body["tools"])


def test_no_parallel_calls() -> None:
    assert asked(MISTRAL, tools=[FUNCTION], parallel_tool_calls=False)["parallel_tool_calls"] is False
    body = asked(CLAUDE, tools=[FUNCTION], parallel_tool_calls=False)
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def test_a_function_stands_for_a_custom_tool_where_there_is_none() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: WORD"}
    tool = {"type": "custom", "name": "shell", "description": "Runs it", "format": grammar}
    call = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c", "name": "shell", "input": "ls"}
    done = {"type": "custom_tool_call_output", "call_id": "c", "output": "a.txt"}
    body = {"model": "m", "input": [{"role": "user", "content": "q"}, call, done], "tools": [tool]}
    for manners in (MISTRAL, CLAUDE):
        made = translated(body, manners)
        assert made.custom_tools == {"shell"}
        assert "start: WORD" in str(made.body["tools"])
        assert "ls" in str(made.body["messages"][1])
    made = translated(body, OPENAI)
    assert made.custom_tools == frozenset()
    assert made.body["tools"][0]["type"] == "custom"


def test_an_output_format_is_told_to_models_that_follow_one() -> None:
    body = {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}}}
    assert asked(MISTRAL, **body)["response_format"]["json_schema"]["schema"] == SCHEMA
    assert asked(CLAUDE, **body)["output_config"]["format"] == {"type": "json_schema", "schema": SCHEMA}
    with pytest.raises(Untranslatable):
        asked(CLAUDE, model="claude-3-5-sonnet-20241022", **body)


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("claude-opus-4-6", "adaptive"),
        ("claude-sonnet-4-5-20250929", "enabled"),
        ("claude-sonnet-4-20250514", "enabled"),
        ("claude-3-7-sonnet-20250219", "enabled"),
        ("claude-fable-5", "adaptive"),
    ],
)
def test_how_much_to_think_is_told_in_the_words_of_the_models_version(model: str, thinking: str) -> None:
    body = asked(CLAUDE, model=model, reasoning={"effort": "high", "summary": "auto"}, temperature=0.3)
    assert body["thinking"]["type"] == thinking
    assert body["thinking"].get("budget_tokens") == (4096 if thinking == "enabled" else None)
    assert ("output_config" in body) == (thinking == "adaptive")
    assert "temperature" not in body, "a model that thinks takes none"
    assert asked(MISTRAL, reasoning={"effort": "high", "summary": "auto"})["reasoning_effort"] == "high"


def test_thinking_needs_room_and_a_free_choice() -> None:
    model, effort = "claude-sonnet-4-5", {"effort": "high"}
    assert asked(CLAUDE, model=model, reasoning=effort, max_output_tokens=2000)["thinking"]["budget_tokens"] == 1999
    assert "thinking" not in asked(CLAUDE, model=model, reasoning=effort, max_output_tokens=900)
    for name in (model, "claude-opus-4-6"):
        body = asked(CLAUDE, model=name, reasoning=effort, tools=[FUNCTION], tool_choice="required")
        assert "thinking" not in body
        assert body["tool_choice"] == {"type": "any"}


def test_a_web_search_is_the_providers_own() -> None:
    place = {"type": "approximate", "country": "CH", "city": None}
    tool = {"type": "web_search", "filters": {"allowed_domains": ["a.example"]}, "user_location": place}
    [made] = asked(CLAUDE, tools=[tool])["tools"]
    assert made["type"].startswith("web_search_")
    assert made["allowed_domains"] == ["a.example"]
    assert made["user_location"] == {"type": "approximate", "country": "CH"}


def test_tools_that_anthropic_runs_itself() -> None:
    reach = {"type": "mcp", "server_label": "s", "server_url": "https://mcp.example", "authorization": "t"}
    server: Json = {**reach, "require_approval": "never", "allowed_tools": ["echo"]}
    code = {"type": "code_interpreter", "container": {"type": "auto"}}
    made = translated({"model": "claude-opus-4-6", "input": "hi", "tools": [FUNCTION, code, server]}, CLAUDE)
    assert [tool.get("type", "function") for tool in made.body["tools"]] == [
        *("function", "code_execution_20250825", "mcp_toolset"),
    ]
    assert made.body["mcp_servers"] == [
        {"type": "url", "url": "https://mcp.example", "name": "s", "authorization_token": "t"}
    ]
    assert made.body["tools"][-1]["configs"] == {"echo": {"enabled": True}}
    assert len(made.betas) == 2
    for field, changed in (
        ("tools[0].require_approval", {"require_approval": "always"}),
        ("tools[0]", {"server_url": None, "connector_id": "c"}),
        ("tools[0].headers", {"headers": {"x": "y"}}),
    ):
        with pytest.raises(Untranslatable) as refused:
            asked(CLAUDE, tools=[{**server, **changed}])
        assert refused.value.param == field


def test_a_schema_is_strict_only_for_models_that_know_it() -> None:
    assert asked(CLAUDE, tools=[FUNCTION])["tools"][0]["strict"] is True
    assert "strict" not in asked(CLAUDE, model="claude-3-haiku-20240307", tools=[FUNCTION])["tools"][0]


def test_a_function_without_a_schema_gets_an_empty_one() -> None:
    bare = {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}
    assert asked(MISTRAL, tools=[bare])["tools"][0]["function"]["parameters"]["type"] == "object"
    assert asked(CLAUDE, tools=[bare])["tools"][0]["input_schema"]["type"] == "object"


def _signature_of(call: Json) -> Any:
    return call.get("extra_content", {}).get("google", {}).get("thought_signature")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": ["web_search"]}, "tools[0]"),
        ({"tools": [{"name": "f"}]}, "tools[0].type"),
        ({"tools": [FUNCTION, {"type": "function", "name": {}}]}, "tools[1].name"),
        ({"tools": {}}, "tools"),
        ({"include": "reasoning.encrypted_content"}, "include"),
        ({"reasoning": "high"}, "reasoning"),
        ({"text": "json"}, "text"),
        ({"input": {"role": "user"}}, "input"),
        ({"input": ["hi"]}, "input[0]"),
        ({"input": [{"type": ["message"]}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": ["hi"]}]}, "input[0].content[0]"),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": [None]}]}, "input[0].output[0]"),
        ({"input": [{"type": "reasoning", "summary": 5}]}, "input[0].summary"),
        ({"tools": [{"type": "custom", "name": "g", "format": "text"}]}, "tools[0].format"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "tools": 5}}, "tool_choice.tools"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [None]}]}, "tools[0].tools[0]"),
    ],
)
def test_a_part_of_a_wrong_form_is_the_clients_mistake(body: Json, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        asked(replace(DEEPSEEK, drops=True), **body)
    assert refused.value.param == param


def test_a_custom_tool_in_a_namespace_becomes_a_function_too() -> None:
    space = {"type": "namespace", "name": "crm", "description": "d", "tools": [{"type": "custom", "name": "note"}]}
    call = {"type": "custom_tool_call", "namespace": "crm", "name": "note", "call_id": "a", "input": "x"}
    output = {"type": "custom_tool_call_output", "call_id": "a", "output": "y"}
    for manners in (MISTRAL, CLAUDE):
        told = translated({"model": "m", "input": [call, output], "tools": [space, FUNCTION]}, manners)
        assert (told.custom_tools, told.namespaced) == (frozenset({"crm--note"}),) * 2
        tool = told.body["tools"][0]
        assert tool.get("function", tool)["name"] == "crm--note"
        assert str(told.body["messages"]).count("'crm--note'") == 1


def call(call_id: str, name: str = "f") -> Json:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": "{}"}


def output(call_id: str, said: Any = "done") -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": said}


def roles(manners: Manners, *items: Json, **body: Any) -> list[str]:
    return [message["role"] for message in asked(manners, input=list(items), **body)["messages"]]


USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "I look."}


def test_the_words_of_a_turn_behind_its_call_do_not_part_the_call_from_its_output() -> None:
    told = asked(MISTRAL, input=[USER, call("a12345678"), ASSISTANT, output("a12345678")])["messages"]
    assert [message["role"] for message in told] == ["user", "assistant", "tool"]
    assert (told[1]["content"], len(told[1]["tool_calls"])) == ("I look.", 1)


def test_outputs_stand_right_behind_the_turn_that_called() -> None:
    late = (USER, call("a"), call("b"), USER, output("b"), output("a", "A"), USER)
    assert roles(OPENAI, *late) == ["user", "assistant", "tool", "tool", "user", "user"]
    blocks = asked(CLAUDE, input=list(late))["messages"][2]["content"]
    assert [block["type"] for block in blocks] == ["tool_result", "tool_result", "text", "text"]


def test_a_call_with_the_id_of_an_earlier_one_keeps_its_own_output() -> None:
    told = asked(OPENAI, input=[call("a"), output("a", "1"), USER, call("a"), output("a", "2"), output("b", "3")])
    assert [message["content"] for message in told["messages"]] == [None, "1", "hi", None, "2", "3"]


def test_an_output_whose_call_was_cut_off_is_told_once() -> None:
    told = asked(OPENAI, input=[output("a", "1"), USER, call("a"), output("a", "2")])
    assert [message["content"] for message in told["messages"]] == ["1", "hi", None, "2"]


@pytest.mark.parametrize("manners", ALL, ids=lambda manners: manners.provider)
def test_an_empty_output_is_an_output(manners: Manners) -> None:
    assert len(roles(manners, USER, call("a"), output("a", []))) == 3


def test_an_output_of_a_shell_is_told_as_text() -> None:
    said = [{"stdout": "x", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]
    shell = {"type": "shell_call", "call_id": "a", "action": {"commands": ["ls"]}}
    told = asked(MISTRAL, input=[shell, {"type": "shell_call_output", "call_id": "a", "output": said}])["messages"]
    assert '"stdout":"x"' in told[1]["content"]


def test_the_output_of_a_custom_tool_in_parts_is_its_text() -> None:
    given = {"type": "custom_tool_call", "call_id": "a", "name": "g", "input": "x"}
    told = asked(OPENAI, input=[given, {**output("a", [text("o"), text("k")]), "type": "custom_tool_call_output"}])
    assert told["messages"][1]["content"] == "ok"


def test_claude_is_told_no_text_without_words() -> None:
    told = asked(CLAUDE, input=[{"role": "user", "content": ""}, message("user", text("")), USER])
    assert told["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(("thought", "thinks"), [(False, False), (True, True)])
def test_a_turn_that_began_without_thinking_goes_on_without(thought: bool, thinks: bool) -> None:
    reasoning = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}], "encrypted_content": "sig"}
    given = [USER, *([reasoning] if thought else []), call("a"), output("a")]
    body = {"input": given, "tools": [FUNCTION], "reasoning": {"effort": "high"}}
    assert ("thinking" in asked(CLAUDE, "claude-sonnet-4-5", **body)) is thinks
    assert "thinking" in asked(CLAUDE, "claude-opus-4-6", **body), "it may decide itself"
    assert "thinking" in asked(CLAUDE, "claude-sonnet-4-5", **body | {"input": [*given, ASSISTANT, USER]})


@pytest.mark.parametrize("manners", ALL, ids=lambda manners: manners.provider)
def test_half_an_emoji_in_a_request_hinders_nothing(manners: Manners) -> None:
    assert asked(manners, input="a\ud83d")["messages"] == [{"role": "user", "content": "a\ufffd"}]


def test_what_is_to_be_dropped_may_have_the_names_of_chat_completions() -> None:
    text_field = {"format": {"type": "json_object"}, "verbosity": "low"}
    body = {"reasoning": {"effort": "high"}, "max_output_tokens": 9, "text": text_field, "top_p": 0.5}
    names = {"reasoning_effort", "response_format", "max_completion_tokens", "verbosity", "top_p"}
    told = asked(replace(OPENAI, dropped=frozenset(names)), **body)
    assert told.keys() == {"model", "messages"}
    assert "thinking" not in asked(replace(CLAUDE, dropped=frozenset(names)), "claude-sonnet-4-5", **body)


def test_what_is_to_be_dropped_may_be_the_part_of_a_request_that_a_path_leads_to() -> None:
    paths = {"tools[*].function.strict", "tools[1]", "extra.a\\.b", "extra.c[*].d", "extra.none.e", "messages[7]"}
    extra = {"a.b": 1, "c": [{"d": 1, "e": 2}, 3], "none": None}
    body = {"tools": [FUNCTION, FUNCTION | {"name": "g"}], "extra": extra}
    told = asked(replace(OPENAI, dropped=frozenset(paths)), **body)
    assert [tool["function"].keys() for tool in told["tools"]] == [{"name", "description", "parameters"}]
    assert told["extra"] == {"c": [{"e": 2}, 3], "none": None}
    assert extra["a.b"] == 1, "the client's own request stays whole"


@pytest.mark.parametrize("manners", ALL, ids=lambda manners: manners.provider)
@pytest.mark.parametrize(
    "body",
    [
        {"text": {}},
        {"text": {"format": None, "verbosity": None}},
        {"reasoning": {"effort": None, "summary": None, "generate_summary": None}},
    ],
)
def test_a_field_that_says_nothing_is_none(body: Json, manners: Manners) -> None:
    assert asked(manners, **body) == asked(manners)


@pytest.mark.parametrize("parameters", [None, {}, {"properties": {}}])
def test_every_function_has_a_schema_of_an_object(parameters: Json | None) -> None:
    [tool] = asked(CLAUDE, tools=[{"type": "function", "name": "f", "parameters": parameters}])["tools"]
    assert tool["input_schema"] == {"type": "object", "properties": {}}


HOSTED: Json = {"type": "web_search"}


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "web_search"}, {"type": "tool", "name": "web_search"}),
        ("auto", None),
    ],
)
def test_a_choice_among_tools_that_claude_runs_itself_is_told(choice: Any, told: Json | None) -> None:
    body = asked(CLAUDE, tools=[HOSTED], tool_choice=choice, reasoning={"effort": "high"})
    assert body.get("tool_choice") == told
    assert ("thinking" in body) is (choice in ("none", "auto")), "it can't think before a call that it must make"
    mixed = asked(CLAUDE, tools=[HOSTED, FUNCTION], tool_choice=choice)
    assert mixed.get("tool_choice", {"type": "auto"}) == (told or {"type": "auto"})


def test_calls_of_hosted_tools_alone_may_be_forbidden_to_be_parallel() -> None:
    body = asked(CLAUDE, tools=[HOSTED], parallel_tool_calls=False)
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def test_a_custom_tool_that_must_be_called_is_named_as_one() -> None:
    body = {"tools": [{"type": "custom", "name": "g"}], "tool_choice": {"type": "custom", "name": "g"}}
    assert asked(OPENAI, **body)["tool_choice"] == {"type": "custom", "custom": {"name": "g"}}
    assert asked(MISTRAL, **body)["tool_choice"] == {"type": "function", "function": {"name": "g"}}


def test_files_in_an_output_are_mended_and_texts_are_told_as_text() -> None:
    def file(kind: str, data: str) -> Json:
        return {"type": "input_file", "filename": "a", "file_data": f"data:{kind};base64,{data}"}

    given = [file("application/pdf", "BBBB"), file("text/plain", "aGk="), file("text/csv", "?")]
    told = asked(CLAUDE, input=[USER, call("a"), output("a", given)])["messages"][-1]["content"][0]["content"]
    pdf, words, broken = (block["source"] for block in told)
    assert (pdf["type"], pdf["data"], pdf["media_type"]) == ("base64", "BBBB", "application/pdf")
    assert words == {"type": "text", "media_type": "text/plain", "data": "hi"}
    assert broken["data"] == "?"


def test_claude_is_told_of_constraints_that_it_cant_enforce_in_words() -> None:
    schema = {
        "type": "object",
        "description": "A person.",
        "minProperties": 1,
        "properties": {
            "name": {"type": "string", "minLength": 3},
            "not": {"oneOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
            "tags": {"type": "array", "minItems": 1, "uniqueItems": False, "items": {"$ref": "#/$defs/tag"}},
        },
        "$defs": {"tag": {"type": "object", "properties": {}, "additionalProperties": True}},
    }
    expected = {
        "type": "object",
        "description": "A person. (minProperties: 1)",
        "properties": {
            "name": {"type": "string", "description": "(minLength: 3)"},
            "not": {"anyOf": [{"type": "integer", "description": "(minimum: 0)"}, {"type": "null"}]},
            "tags": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/tag"}},
        },
        "$defs": {"tag": {"type": "object", "properties": {}, "additionalProperties": False}},
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "name": "x", "schema": schema, "strict": True}
    told = asked(CLAUDE, text={"format": form}, tools=[FUNCTION | {"parameters": schema}])
    assert told["output_config"]["format"]["schema"] == expected
    assert told["tools"][0]["input_schema"] == expected
    lax = asked(CLAUDE, tools=[FUNCTION | {"parameters": schema, "strict": False}])
    assert lax["tools"][0]["input_schema"] == schema, "nothing is enforced"


def test_a_turn_told_in_pieces_is_one_message() -> None:
    said = [{"role": "assistant", "content": text} for text in ("a", "b", "")]
    called = [{"type": "function_call", "call_id": f"c{n}", "name": "f", "arguments": "{}"} for n in range(2)]
    answered = [{"type": "function_call_output", "call_id": f"c{n}", "output": "x"} for n in range(2)]
    messages = asked(MISTRAL, input=[{"role": "user", "content": "q"}, *said, *called, *answered])["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert messages[1]["content"] == "ab"
    assert len(messages[1]["tool_calls"]) == 2
