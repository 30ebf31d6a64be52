"""Request bodies: what is refused and in which words, and what an upstream gets of the rest."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BadRequest, InvalidJson, InvalidType, InvalidValue, MissingParameter, ModelNotFound
from server.protocol import jsontext
from server.protocol.requests import (
    CreateRequest,
    check_cached,
    forwarded_request,
    input_items,
    job_request,
    parse_create,
    parse_object,
)
from tests.support.generated import json_objects, json_values, moderate

ID = "litellm_poll_488c5546-7b0c-412d-955e-5792202d2201"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "The request body is empty: expected a JSON object."),
        (b" \r\n", "The request body is empty: expected a JSON object."),
        (b"[]", "The request body is not a JSON object."),
        (b"null", "The request body is not a JSON object."),
        (b'"text"', "The request body is not a JSON object."),
        (b'{"model": NaN}', "at line 1 column 11."),
        (b'{"a": 1,\n "b": Infinity}', "at line 2 column 7."),
        (b'{"a": 1,}', "at line 1 column 8."),
        (b"{'a': 1}", "at line 1 column 2."),
        (b'{"a": "\xff"}', "UTF-8"),
        (b"[" * 100_000, "at line 1"),
        (b"[" * 100_000 + b"]" * 100_000, "at line 1"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "at line 1"),
        (b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", "The request body is nested too deeply."),
        (b"a=b&c=d", "at line 1 column 1."),
    ],
)
def test_what_is_no_json_object_is_refused_and_told_where(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidJson) as refused:
        parse_object(raw)
    assert message in refused.value.message
    assert refused.value.status == 400
    assert (refused.value.type, refused.value.code) == ("invalid_request_error", "invalid_json")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("background", "true", "Invalid type for 'background': expected a boolean, but got a string instead."),
        ("background", 1, "Invalid type for 'background': expected a boolean, but got an integer instead."),
        ("stream", "yes", "Invalid type for 'stream': expected a boolean, but got a string instead."),
        ("stream", [], "Invalid type for 'stream': expected a boolean, but got an array instead."),
        ("store", {}, "Invalid type for 'store': expected a boolean, but got an object instead."),
        ("store", 0.5, "Invalid type for 'store': expected a boolean, but got a number instead."),
        ("model", 5, "Invalid type for 'model': expected a string, but got an integer instead."),
        ("model", True, "Invalid type for 'model': expected a string, but got a boolean instead."),
        (
            "previous_response_id",
            ["a"],
            "Invalid type for 'previous_response_id': expected a string, but got an array instead.",
        ),
    ],
)
def test_a_wrong_type_is_refused_in_the_words_of_the_contract(field: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidType) as refused:
        parse_create(orjson.dumps({"model": "gpt-5.2", field: value}))
    assert refused.value.message == message
    assert refused.value.as_dict() == {
        "message": message,
        "type": "invalid_request_error",
        "param": field,
        "code": "invalid_type",
    }


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": ""}, {"input": "hi", "background": True}])
def test_a_missing_model_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(MissingParameter) as refused:
        parse_create(orjson.dumps(body))
    assert refused.value.message == "Missing required parameter: 'model'."
    assert (refused.value.code, refused.value.param) == ("missing_required_parameter", "model")


def test_null_means_absent() -> None:
    body = dict.fromkeys(("background", "stream", "store", "previous_response_id", "input", "metadata", "tools"))
    create = parse_create(orjson.dumps({"model": "gpt-5.2", **body}))
    assert (create.background, create.stream, create.store) == (False, False, True)
    assert create.previous_response_id is None
    check_cached(create.body)
    assert input_items(create.body, ID) == []


def test_what_is_read_of_a_body() -> None:
    body = {"model": "m", "background": True, "stream": True, "store": False, "previous_response_id": "resp_0"}
    assert parse_create(orjson.dumps(body)) == CreateRequest(
        body=body, model="m", background=True, stream=True, store=False, previous_response_id="resp_0"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": 5}, "Invalid type for 'input': expected a string or an array, but got an integer instead."),
        ({"input": {}}, "Invalid type for 'input': expected a string or an array, but got an object instead."),
        ({"input": ["a"]}, "Invalid type for 'input[0]': expected an object, but got a string instead."),
        ({"input": [{}, None]}, "Invalid type for 'input[1]': expected an object, but got null instead."),
        ({"input": [{"type": 5}]}, "Invalid type for 'input[0].type': expected a string, but got an integer instead."),
        ({"input": [{"id": {}}]}, "Invalid type for 'input[0].id': expected a string, but got an object instead."),
        ({"metadata": []}, "Invalid type for 'metadata': expected an object, but got an array instead."),
        ({"text": "a"}, "Invalid type for 'text': expected an object, but got a string instead."),
        ({"reasoning": True}, "Invalid type for 'reasoning': expected an object, but got a boolean instead."),
        ({"tools": {}}, "Invalid type for 'tools': expected an array, but got an object instead."),
        ({"include": "a"}, "Invalid type for 'include': expected an array, but got a string instead."),
    ],
)
def test_a_cached_response_refuses_what_it_could_not_echo(body: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidType) as refused:
        check_cached(body)
    assert refused.value.message == message


@moderate
@given(st.binary() | json_values.map(orjson.dumps))
def test_arbitrary_bytes_are_read_or_refused(raw: bytes) -> None:
    with suppress(BadRequest):
        assert parse_create(raw).model


input_values = st.lists(
    json_objects | st.fixed_dictionaries({}, optional=dict.fromkeys(("type", "role", "content", "id"), json_values)),
    max_size=4,
)


@moderate
@given(st.text() | input_values)
def test_what_is_accepted_can_be_listed(given_input: Any) -> None:
    body = {"model": "m", "input": given_input}
    try:
        check_cached(body)
    except BadRequest:
        return
    items = input_items(body, ID)
    assert all(isinstance(item["id"], str) and item["id"] and isinstance(item["type"], str) for item in items)
    assert items == input_items(orjson.loads(orjson.dumps(body)), ID)


def test_an_upstream_gets_its_own_names_and_all_else_as_it_came() -> None:
    body = {"model": "public", "input": "hi", "unheard_of": [1.5, None], "background": True, "stream": None}
    assert forwarded_request(body, "theirs", None) == {**body, "model": "theirs"}
    assert forwarded_request({**body, "previous_response_id": "ours"}, "theirs", "resp_0") == {
        **body,
        "model": "theirs",
        "previous_response_id": "resp_0",
    }


@pytest.mark.parametrize("stream", [True, False, None])
def test_a_job_streams_and_is_no_background_response_to_the_upstream(stream: bool | None) -> None:
    body = {"model": "public", "input": "hi", "background": True, "background_options": {}, "stream": stream}
    assert job_request(body, "theirs", None) == {"model": "theirs", "input": "hi", "stream": True}


# Input items.


def test_a_text_is_one_user_message() -> None:
    (item,) = input_items({"input": "hi"}, ID)
    assert item.pop("id").startswith("msg_")
    assert item == {
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "hi"}],
    }


def test_messages_get_their_type_status_and_parts() -> None:
    given_items = [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Yes.", "status": "incomplete"},
        {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
        {"type": "message", "role": "user"},
    ]
    items = input_items({"input": given_items}, ID)
    assert [(item["type"], item["role"], item["status"], item["content"]) for item in items] == [
        ("message", "system", "completed", [{"type": "input_text", "text": "Be brief."}]),
        ("message", "assistant", "incomplete", [{"type": "output_text", "text": "Yes.", "annotations": []}]),
        ("message", "user", "completed", [{"type": "input_image", "image_url": "x"}]),
        ("message", "user", "completed", []),
    ]


def test_other_items_keep_what_they_have() -> None:
    output = {"type": "function_call_output", "call_id": "c", "output": "42"}
    (item,) = input_items({"input": [output]}, ID)
    assert item.pop("id").startswith("function_")
    assert item == output


def test_an_item_without_type_and_role_is_a_reference() -> None:
    assert input_items({"input": [{"id": "msg_1"}]}, ID) == [{"type": "item_reference", "id": "msg_1"}]


def test_given_ids_are_kept_and_the_others_derived() -> None:
    body = {"input": [{"id": "mine", "role": "user", "content": "a"}, {"id": None, "role": "user", "content": "a"}]}
    first, second = input_items(body, ID)
    assert first["id"] == "mine"
    assert second["id"] == input_items(body, ID)[1]["id"]
    assert second["id"] != input_items(body, "another")[1]["id"]


def test_the_same_item_twice_has_two_ids() -> None:
    one, two = input_items({"input": [{"role": "user", "content": "a"}] * 2}, ID)
    assert one["id"] != two["id"]


def test_listing_does_not_change_the_request() -> None:
    body = {"input": [{"role": "user", "content": "a"}]}
    input_items(body, ID)
    assert body == {"input": [{"role": "user", "content": "a"}]}


def test_numbers_and_texts_that_the_fast_parser_refuses_reach_the_provider_as_they_stood() -> None:
    raw = rb'{"model":"m","input":"cut \ud83d","tools":[{"maximum":18446744073709551616,"minimum":-1e400}]}'
    assert jsontext.dumps(forwarded_request(parse_create(raw).body, "m", None)) == raw


def test_a_model_that_is_no_text_does_not_exist() -> None:
    with pytest.raises(ModelNotFound, match=r"The model 'gpt-\?' does not exist"):
        parse_create(rb'{"model":"gpt-\ud83d"}')


def test_more_secrets_than_events_can_be_searched_for_are_refused() -> None:
    def body(count: int) -> bytes:
        headers = {f"h{number}": f"secret-{number:08}" for number in range(count)}
        return orjson.dumps({"model": "m", "tools": [{"type": "mcp", "headers": headers}]})

    assert parse_create(body(1000)).model == "m"
    with pytest.raises(InvalidValue, match="at most 1000 credentials and headers, but got 1001") as refused:
        parse_create(body(1001))
    assert refused.value.param == "tools"
