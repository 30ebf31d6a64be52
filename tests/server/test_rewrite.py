"""Ids on their way through: every raw id becomes the client's, and no other byte changes."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config import parse_config
from server.errors import UpstreamRefusal, UpstreamUnavailable
from server.protocol.ids import CompositeId, decode_composite, encode_composite, is_owned
from server.protocol.sse import ServerEvent, encode_frame, parse_block
from server.upstream.affinity import Marker
from server.upstream.deployments import Deployments
from server.upstream.rewrite import Rewriter
from tests.support.generated import json_objects, moderate

SECRET = b"s" * 32
RAW, PREVIOUS = "resp_0111a87191b9d385006979a7099fc481", "resp_9999a87191b9d385006979a7099fc481"


def rewriter(
    *, fill_missing: bool = False, known: dict[str, str] | None = None, marked: bool = False, **fields: Any
) -> Rewriter:
    entry = {
        "model_name": "gpt-5.2",
        "litellm_params": {"model": "openai/gpt-5.2"},
        "model_info": {"id": "main", "fill_missing": fill_missing},
    }
    (deployment,) = Deployments(parse_config({"model_list": [entry]}, environ={}), environ={}).all
    marker = Marker(deployment.id, "alice", SECRET, needed=marked)
    return Rewriter(deployment, marker, dict(known or {}), **fields)


def public(raw: str) -> str:
    return rewriter().public(raw)


def sse(payload: Any, name: str | None = None) -> ServerEvent:
    data = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    raw = encode_frame(name or "message", data) if name != "" else b"data: %b\n\n" % data
    parsed = parse_block(raw)
    assert parsed is not None
    return parsed


def passed(payload: Any, name: str = "response.created", **options: Any) -> Any:
    """The data of an event behind the rewriter."""
    frame = parse_block(rewriter(**options).event(sse(payload, name)))
    assert frame is not None
    return orjson.loads(frame.data)


def test_a_public_id_is_composite_and_belongs_to_its_owner() -> None:
    composite = decode_composite(public(RAW))
    assert composite is not None
    assert (composite.provider, composite.model_id, composite.response_id) == ("openai", "main", RAW)
    assert is_owned(composite, "alice", [SECRET])
    assert not is_owned(composite, "bob", [SECRET])


def test_a_public_id_is_always_the_same() -> None:
    one = rewriter()
    assert one.public(RAW) == one.public(RAW) == public(RAW)


def test_an_id_that_the_client_gave_goes_before_one_of_ours() -> None:
    untagged = encode_composite(CompositeId("openai", "main", RAW))
    assert orjson.loads(rewriter(known={RAW: untagged}).json(orjson.dumps({"id": RAW}))) == {"id": untagged}


# JSON.


def test_both_ids_of_a_response_are_rewritten_and_nothing_else() -> None:
    body = '{\n "id" : "%s",\t"object":"response", "previous_response_id":"%s","n":1.50,"t":"\\u00e9","output":[]}\r\n'
    written = rewriter().json((body % (RAW, PREVIOUS)).encode())
    assert written == (body % (public(RAW), public(PREVIOUS))).encode()


@moderate
@given(json_objects, st.booleans())
def test_all_else_stays_as_it_was(fields: dict[str, Any], ascii_only: bool) -> None:
    rest = {f"x {name}": value for name, value in fields.items()}
    body = {"id": RAW, "object": "response", "previous_response_id": PREVIOUS, **rest}
    expected = {**body, "id": public(RAW), "previous_response_id": public(PREVIOUS)}
    written = rewriter().json(json.dumps(body, indent=1, ensure_ascii=ascii_only).encode())
    assert written == json.dumps(expected, indent=1, ensure_ascii=ascii_only).encode()


@pytest.mark.parametrize("kind", ["response", "response.deleted", "response.compaction"])
def test_answers_to_delete_and_compact_are_rewritten_too(kind: str) -> None:
    body = {"id": RAW, "object": kind, "deleted": True}
    assert orjson.loads(rewriter().json(orjson.dumps(body))) == {**body, "id": public(RAW)}


def test_a_raw_id_is_rewritten_wherever_it_is_quoted() -> None:
    body = {"id": RAW, "output": [{"id": "msg_1", "response_id": RAW}]}
    assert RAW.encode() not in rewriter().json(orjson.dumps(body))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"object":"list","data":[{"id":"msg_0000000000"}],"first_id":"msg_0000000000","id":"resp_0000000000"}',
        b'{ "id": null, "previous_response_id":null }',
        b'{"id":5}',
        b'{"id":""}',
        b"{}",
        b"[]",
        b'["id"]',
        b"null",
        b"",
        b"not json",
        b"\xff\xfe",
    ],
)
def test_what_names_no_response_keeps_its_bytes(raw: bytes) -> None:
    assert rewriter().json(raw) == raw


@pytest.mark.parametrize("name", ["id", "previous_response_id"])
@pytest.mark.parametrize("short", ["1", "id", "a", "object", "output", "resp_1"])
def test_a_short_id_is_replaced_in_its_place_alone(name: str, short: str) -> None:
    body = {name: short, "object": "response", "output": [short], "metadata": {short: short}, "user": short}
    assert orjson.loads(rewriter().json(orjson.dumps(body))) == {**body, name: public(short)}


def test_two_short_ids_are_both_replaced() -> None:
    body = {"id": "2", "previous_response_id": "1", "output": ["1", "2"]}
    found = orjson.loads(rewriter().json(orjson.dumps(body)))
    assert found == {**body, "id": public("2"), "previous_response_id": public("1")}


@pytest.mark.parametrize("raw_id", [f"{RAW}/x", "resp_a/b/c~23456789"])
def test_an_id_that_is_written_with_escapes_is_found(raw_id: str) -> None:
    raw = json.dumps({"id": raw_id, "text": "a/b"}).replace("/", "\\/").encode()
    assert orjson.loads(rewriter().json(raw)) == {"id": public(raw_id), "text": "a/b"}


@pytest.mark.parametrize("raw_id", ["resp_ü23456789", "a b", "..", "r" * 6000])
def test_an_id_that_no_url_can_carry_is_refused(raw_id: str) -> None:
    with pytest.raises(UpstreamUnavailable, match="no URL can carry"):
        rewriter().json(json.dumps({"id": raw_id}).encode())
    known = rewriter(subject="known").json(json.dumps({"id": raw_id}).encode())
    assert orjson.loads(known) == {"id": "known"}


def test_who_polls_for_hours_does_not_remember_an_id_an_answer() -> None:
    one = rewriter(subject="known")
    for number in range(3):
        assert orjson.loads(one.again().json(orjson.dumps({"id": f"{RAW}{number}"}))) == {"id": "known"}
    assert one.public_ids == {}


def test_an_answer_is_about_one_response_whatever_ids_it_gives_it() -> None:
    """LiteLLM as an upstream encrypts its ids anew for each answer, and once did so for each event."""
    one = rewriter()
    frames = [
        one.event(sse({"type": kind, "response": {"id": raw, "object": "response"}}, kind))
        for kind, raw in (("response.created", RAW), ("response.completed", PREVIOUS))
    ]
    assert {orjson.loads(frame.split(b"data: ")[1])["response"]["id"] for frame in frames} == {public(RAW)}


# Events.


@pytest.mark.parametrize(
    "raw",
    [
        b'event: response.output_text.delta\r\ndata: {"delta":"resp_0","id":"resp_0000000000"}\r\n\r\n',
        b": comment\nid: 7\ndata: [DONE]\n\n",
        b'data:  {"response" : null}\n\n',
        b'data: {"response":"resp_0000000000"}\n\n',
        b'data: not json but "response"\n\n',
        b'data: ["response","error"]\n\n',
        b'event: error\ndata: {"type":"error","message":"Nothing to hide."}\n\n',
    ],
)
def test_an_event_that_carries_no_response_keeps_its_bytes(raw: bytes) -> None:
    event = parse_block(raw)
    assert event is not None
    assert rewriter().event(event) == raw


def test_both_ids_of_the_response_in_an_event_are_rewritten_and_nothing_else() -> None:
    data = b'{"type":"response.created","id":"x","response":{ "id":"%b" ,"previous_response_id":"%b","n":1.0},"z":1.50}'
    written = rewriter().event(sse(data % (RAW.encode(), PREVIOUS.encode()), "response.created"))
    assert written == encode_frame("response.created", data % (public(RAW).encode(), public(PREVIOUS).encode()))


def test_an_event_without_a_name_gets_that_of_its_type() -> None:
    payload = {"type": "response.created", "response": {"id": RAW}}
    assert rewriter().event(sse(payload, "")).startswith(b"event: response.created\ndata: ")
    assert rewriter().event(sse({"response": {"id": RAW}}, "")).startswith(b"event: message\ndata: ")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_pretty_printed_data_stays_one_event(end: bytes) -> None:
    payload = {"type": "response.created", "response": {"id": RAW, "text": "a\nb"}}
    lines = json.dumps(payload, indent=2).encode().split(b"\n")
    event = parse_block(b"event: response.created" + end + b"".join(b"data: " + line + end for line in lines) + end)
    assert event is not None
    written = rewriter().event(event)
    frame = parse_block(written)
    assert frame is not None
    assert written.count(b"\n") == 3
    assert orjson.loads(frame.data) == {"type": "response.created", "response": {"id": public(RAW), "text": "a\nb"}}


def test_a_number_that_looks_like_an_id_is_left_alone() -> None:
    response = {"id": "1769579421", "created_at": 1769579421, "error": None, "metadata": {"at": "on 1769579421"}}
    found = passed({"response": response})["response"]
    assert found == {**response, "id": public("1769579421")}


@moderate
@given(json_objects, st.sampled_from(["response", "error", "message", "type"]), json_objects)
def test_arbitrary_events_never_raise(payload: dict[str, Any], name: str, inner: dict[str, Any]) -> None:
    frame = parse_block(rewriter().event(sse({**payload, name: inner}, "response.created")))
    assert frame is not None
    assert isinstance(orjson.loads(frame.data), dict)


@pytest.mark.parametrize("depth", [254, 1000, 5000])
@pytest.mark.parametrize("head", [b'"id":"resp_1","object":"response"', b'"id":"resp_\\u0061bcdefgh"'])
def test_an_answer_nested_too_deeply_to_be_written_again_shows_no_id_either(head: bytes, depth: int) -> None:
    deep = b'{%b,"metadata":{"a":%b%b}}' % (head, b"[" * depth, b"]" * depth)
    event = b'{"response":%b}' % deep
    for written in (rewriter().json(deep), rewriter().event(ServerEvent("e", event, b"data: %b\n\n" % event))):
        assert head not in written


@pytest.mark.parametrize("raw", [b"\\ud83d", b"resp_\\ude00\\ud83d", b"resp \\u00e9"])
def test_an_id_that_is_no_text_is_the_providers_mistake(raw: bytes) -> None:
    with pytest.raises(UpstreamUnavailable, match="no URL can carry"):
        rewriter().json(b'{"id":"%b","object":"response"}' % raw)


def test_an_id_is_replaced_where_it_stands_however_it_is_written() -> None:
    odd = RAW.replace("_", "\\u005f")
    written = rewriter().json(f'{{"id":"{odd}","object":"response","metadata":{{"a":"{RAW}"}}}}'.encode())
    assert orjson.loads(written)["id"] == public(RAW)


# Error messages.


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "error", "error": {"message": f"No response {RAW}."}},
        {"type": "error", "message": f"No response {RAW}."},
        {"type": "error", "error": f"No response {RAW}."},
        {"type": "response.failed", "response": {"id": "x", "error": {"message": f"No response {RAW}."}}},
    ],
)
def test_the_message_of_an_error_event_does_not_tell_a_raw_id(payload: dict[str, Any]) -> None:
    found = orjson.dumps(passed(payload, known={RAW: "mine"})).decode()
    assert RAW not in found
    assert "No response mine." in found


def test_the_response_in_an_event_makes_its_id_known_to_its_message() -> None:
    found = passed({"response": {"id": RAW, "error": {"code": "x", "message": f"{RAW} failed"}}})["response"]
    assert found["error"] == {"code": "x", "message": f"{public(RAW)} failed"}


def test_the_message_in_a_json_answer_does_not_tell_a_raw_id() -> None:
    body = {"id": RAW, "status": "failed", "error": {"code": "x", "message": f'It was "{RAW}".'}}
    found = orjson.loads(rewriter().json(orjson.dumps(body)))
    assert found["error"]["message"] == f'It was "{public(RAW)}".'


def test_the_message_of_a_refusal_does_not_tell_a_raw_id() -> None:
    error = UpstreamRefusal(404, {"message": f"Response with id '{RAW}' not found.", "type": "invalid_request_error"})
    rewritten = rewriter(known={RAW: "mine"}).error(error)
    assert rewritten is error
    assert orjson.loads(rewritten.body())["error"]["message"] == "Response with id 'mine' not found."


def test_a_short_id_in_a_message_is_left_to_chance() -> None:
    error = rewriter(known={"a": "mine"}).error(UpstreamRefusal(400, {"message": "That is a bad day."}))
    assert error.message == "That is a bad day."


def test_an_id_that_begins_like_another_one_is_not_taken_for_it() -> None:
    known = {RAW: "short", f"{RAW}-2": "long"}
    error = rewriter(known=known).error(UpstreamRefusal(400, {"message": f"{RAW}-2 continues {RAW}"}))
    assert error.message == "long continues short"


# Weak providers.


def test_a_weak_providers_object_is_filled_up_on_demand() -> None:
    body = {"id": RAW, "object": "response", "status": "completed", "output": []}
    raw = orjson.dumps(body)
    assert set(orjson.loads(rewriter().json(raw))) == set(body)
    filled = orjson.loads(rewriter(fill_missing=True, fill_from={"model": "gpt-5.2"}).json(raw))
    assert filled["id"] == public(RAW)
    assert (filled["model"], filled["tools"], filled["error"]) == ("gpt-5.2", [], None)


def test_a_weak_providers_events_are_filled_up_on_demand() -> None:
    response = {"id": RAW, "object": "response", "status": "in_progress"}
    payload = {"type": "response.created", "sequence_number": 0, "response": response}
    found = passed(payload, fill_missing=True)
    assert found["response"]["tools"] == []
    assert found["response"]["id"] == public(RAW)
    assert found["sequence_number"] == 0


@pytest.mark.parametrize(
    "body", [{"object": "list", "data": []}, {"id": RAW, "object": "response", "deleted": True}, {"object": "response"}]
)
def test_what_is_no_response_object_is_not_filled_up(body: dict[str, Any]) -> None:
    found = orjson.loads(rewriter(fill_missing=True).json(orjson.dumps(body)))
    assert set(found) == set(body)


@pytest.mark.parametrize(
    "body",
    [
        rb'{"id":"%s","cut":"\ud83d"}',
        b'{"id":"%s","far":1e400}',
        b'{"id":"%s","broken":"\xff"}',
        b'{"id":"%s","output":[{"id":"msg_1","type":"mess',
        b'{"object":"response","id" : "%s","oops":}',
        b'{"output":[{"id":"msg_1"}],"id":"%s"',
        b'[{"previous_response_id":"%s"},',
    ],
)
def test_no_answer_keeps_a_raw_id_whatever_can_be_parsed(body: bytes) -> None:
    raw = body.replace(b"%s", RAW.encode())
    made = rewriter().json(raw)
    assert RAW.encode() not in made
    assert public(RAW).encode() in made


def test_no_event_keeps_a_raw_id_whatever_can_be_parsed() -> None:
    created = b'{"type":"response.created","response":{"id":"%s","text":"\\ud83d"}}' % RAW.encode()
    cut = b'{"type":"response.completed","response":{"id":"%s","output":[' % RAW.encode()
    named = b'{"type":"response.progress","response_id":"%s"}' % RAW.encode()
    for data in (created, cut, named):
        made = rewriter().event(sse(data, "response.created"))
        assert RAW.encode() not in made
        assert public(RAW).encode() in made
