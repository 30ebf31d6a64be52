"""Two accounts behind one model: what only one of them can use leads each later request back to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.support.accounts import Accounts, bound_values, message, ran_code, two_accounts
from tests.support.refusals import refusal
from tests.support.replica import BOB, CACHED, MASTER_KEY, NATIVE, Replica, make_config, running_replica
from tests.support.sse import events_of, read_stream
from tests.support.upstreams import Upstream, running_script

ASKED_OFTEN = 24
"""Without affinity so many all go well once in 16 million runs; that ties always choose one account is as rare."""


@pytest.fixture
def accounts() -> Accounts:
    return Accounts()


@pytest.fixture
async def upstream(accounts: Accounts) -> AsyncIterator[Upstream]:
    async with running_script(accounts) as running:
        yield running


@pytest.fixture
async def pollux(upstream: Upstream, store_url: str) -> AsyncIterator[Replica]:
    async with running_replica(two_accounts(upstream.base_url), store_url) as replica:
        yield replica


# The ways to have a response made; each gives the finished object.


async def proxied(http: aiohttp.ClientSession, **body: Any) -> dict[str, Any]:
    return await read(await http.post("responses", json={"model": CACHED, "input": "x", **body}))


async def streamed(http: aiohttp.ClientSession, **body: Any) -> dict[str, Any]:
    answer = await http.post("responses", json={"model": CACHED, "input": "x", "stream": True, **body})
    response: dict[str, Any] = (await read_stream(answer))[-1]["response"]
    return response


async def native(http: aiohttp.ClientSession, **body: Any) -> dict[str, Any]:
    created = await http.post("responses", json={"model": NATIVE, "input": "x", "background": True, **body})
    return await read(await http.get(f"responses/{quote((await read(created))['id'], safe='')}?wait=20"))


async def cached(http: aiohttp.ClientSession, **body: Any) -> dict[str, Any]:
    created = await http.post("responses", json={"model": CACHED, "input": "x", "background": True, **body})
    done = await read(await http.get(f"responses/{(await read(created))['id']}?wait=20"))
    assert done["status"] == "completed", done
    return done


async def read(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    assert answer.status == 200, await answer.text()
    body: dict[str, Any] = await answer.json()
    return body


WAYS = pytest.mark.parametrize("make", [proxied, streamed, native, cached])


def account_in(response: dict[str, Any]) -> str:
    """The account that made a response, by what is in it behind the marks."""
    [account] = {value.rpartition("_")[0].rpartition("_")[2] for value in bound_values(response["output"])}
    return account


def marked_only(value: Any) -> bool:
    found = bound_values(value)
    return bool(found) and all("pollux-account." in one for one in found)


@WAYS
async def test_a_follow_up_goes_to_the_account_that_can_read_it(make: Any, pollux: Replica, accounts: Accounts) -> None:
    async with pollux.http() as http:
        made = []
        for _ in range(ASKED_OFTEN):
            first = await make(http)
            follow_up = [{"role": "user", "content": "x"}, *first["output"], {"role": "user", "content": "and now?"}]
            made += [first, second := await make(http, input=follow_up)]
            assert account_in(first) == account_in(second)
        assert set(accounts.asked) == {"first", "second"}, "first requests are shared as before"
        assert all(marked_only(response["output"]) for response in made)


@WAYS
async def test_it_holds_for_requests_of_any_kind(make: Any, pollux: Replica) -> None:
    """What one way gave, every other way can go on with."""
    async with pollux.http() as http:
        for _ in range(3):
            first = await make(http)
            for other in (proxied, streamed, native, cached):
                assert account_in(await other(http, input=first["output"])) == account_in(first)


async def test_every_view_of_a_cached_response_shows_the_same_marks(pollux: Replica, upstream: Upstream) -> None:
    async with pollux.http() as http:
        first = await proxied(http)
        upstream.requests.clear()
        body = {"model": CACHED, "input": first["output"], "background": True, "stream": True}
        events = await read_stream(await http.post("responses", json=body))
        response = events[-1]["response"]
        assert not any("pollux" in value for value in bound_values(upstream.requests[0].json)), "unmarked on the way in"

        path = f"responses/{response['id']}"
        assert await read_stream(await http.get(f"{path}?stream=true")) == events
        assert (await read(await http.get(path)))["output"] == response["output"]
        assert (await read(await http.get("responses")))["data"][0]["output"] == response["output"]
        for event in events[3:]:
            assert marked_only(event) or not bound_values(event)
        for event in events[4:-1]:
            if event["type"] == "response.output_item.done":
                assert event["item"] == response["output"][event["output_index"]]
        # The input items are what the client sent.
        items = (await read(await http.get(f"{path}/input_items?order=asc")))["data"]
        assert bound_values(items) == bound_values(first["output"])


async def test_the_input_items_of_a_native_response_are_marked_too(pollux: Replica) -> None:
    async with pollux.http() as http:
        created = await native(http)
        items = await read(await http.get(f"responses/{quote(created['id'], safe='')}/input_items"))
        assert marked_only(items["data"])


async def test_a_container_in_a_tool_leads_to_its_account(pollux: Replica, upstream: Upstream) -> None:
    async with pollux.http() as http:
        for _ in range(ASKED_OFTEN):
            first = await proxied(http)
            container = first["output"][1]["container_id"]
            assert container.startswith("cntr_"), "it looks like what it is"
            tools = [{"type": "code_interpreter", "container": container}]
            second = await proxied(http, tools=tools)
            assert account_in(second) == account_in(first)
            assert second["tools"] == tools, "the client knows it by this name"
            shell = {"type": "shell", "environment": {"type": "container_reference", "container_id": container}}
            assert account_in(await proxied(http, tools=[shell])) == account_in(first)


async def test_metadata_is_the_clients_own(pollux: Replica, upstream: Upstream) -> None:
    async with pollux.http() as http:
        container = (await proxied(http))["output"][1]["container_id"]
        second = await proxied(http, metadata={"container_id": container})
        assert second["metadata"] == {"container_id": container}
        assert upstream.requests[-1].json["metadata"] == {"container_id": container}


# Whose marks count.


async def test_a_mark_of_somebody_else_steers_nothing(pollux: Replica, accounts: Accounts, upstream: Upstream) -> None:
    async with pollux.http() as alice, pollux.http(BOB) as bob:
        hers = (await proxied(alice))["output"]
        accounts.asked.clear()
        for _ in range(ASKED_OFTEN):
            answer = await refusal(await bob.post("responses", json={"model": CACHED, "input": hers}))
            assert answer.fields == (400, "invalid_request_error", "invalid_encrypted_content", None)
            assert bound_values(upstream.requests[-1].json) == bound_values(hers), "they pass as any other text"
        assert set(accounts.asked) == {"first", "second"}


async def test_the_master_may_go_on_with_everybodys(pollux: Replica) -> None:
    async with pollux.http() as alice, pollux.http(MASTER_KEY) as master:
        for _ in range(ASKED_OFTEN):
            hers = await proxied(alice)
            assert account_in(await proxied(master, input=hers["output"])) == account_in(hers)


@pytest.mark.parametrize("change", ["deployment", "check", "value", "none"])
async def test_what_is_not_marked_by_us_stays_as_it_is(change: str, pollux: Replica, upstream: Upstream) -> None:
    async with pollux.http() as http:
        thought = (await proxied(http))["output"][0]
        _, deployment, check, value = thought["encrypted_content"].split(".", 3)
        strange = {
            "deployment": f"pollux-account.{deployment[::-1]}.{check}.{value}",
            "check": f"pollux-account.{deployment}.{check[::-1]}.{value}",
            "value": f"pollux-account.{deployment}.{check}.{value}x",
            "none": "gAAAA_of_somebody_else",
        }[change]
        body = {"model": CACHED, "input": [{**thought, "encrypted_content": strange}]}
        assert (await refusal(await http.post("responses", json=body))).status == 400
        assert upstream.requests[-1].json["input"] == body["input"]


# When accounts come, go and mix.


@asynccontextmanager
async def alice(config: dict[str, Any], store_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with running_replica(config, store_url) as replica, replica.http() as http:
        yield http


async def test_with_one_account_nothing_is_marked(upstream: Upstream, store_url: str) -> None:
    async with alice(make_config(upstream.base_url, api_key="first"), store_url) as http:
        for make in (proxied, streamed, native, cached):
            assert (await make(http))["output"][1:] == [ran_code("first"), message("first")]


async def test_the_mark_of_a_deployment_that_is_gone_is_taken_off(upstream: Upstream, store_url: str) -> None:
    async with alice(two_accounts(upstream.base_url), store_url) as http:
        made = [await proxied(http) for _ in range(ASKED_OFTEN)]
    config = make_config(upstream.base_url, api_key="second")
    config["model_list"][0]["model_info"] = {"id": "another-name"}
    async with alice(config, store_url) as http:
        for response in made:
            body = {"model": CACHED, "input": response["output"]}
            answer = await http.post("responses", json=body)
            # The provider alone can say whether this is still its account.
            assert answer.status == (200 if account_in(response) == "second" else 400)


async def test_reasoning_of_another_account_is_left_out_and_the_rest_goes_along(
    upstream: Upstream, store_url: str
) -> None:
    """A history over two accounts, as a fallback makes it: the newest one is asked."""
    async with alice(two_accounts(upstream.base_url), store_url) as http:
        by_account = await one_of_each(http)
        for older, newer in (("first", "second"), ("second", "first")):
            words = {"role": "user", "content": "x"}
            old_thought, new_thought = by_account[older]["output"][0], by_account[newer]["output"][0]
            done = await proxied(http, input=[words, old_thought, words, new_thought, words])
            assert account_in(done) == newer
            sent = upstream.requests[-1].json["input"]
            assert [item.get("type") for item in sent] == [None, None, "reasoning", None]
            assert account_in(await cached(http, input=[old_thought, words, new_thought])) == newer


async def test_a_compacted_history_decides_before_reasoning(upstream: Upstream, store_url: str) -> None:
    """It can't be left out."""
    async with alice(two_accounts(upstream.base_url), store_url) as http:
        by_account = await one_of_each(http, context_management=[{"type": "compaction"}])
        for one, other in (("first", "second"), ("second", "first")):
            compacted, thought = by_account[one]["output"][0], by_account[other]["output"][1]
            done = await proxied(http, input=[compacted, {"role": "user", "content": "x"}, thought])
            assert account_in(done) == one
            assert [item.get("type") for item in upstream.requests[-1].json["input"]] == ["compaction", None]


async def one_of_each(http: aiohttp.ClientSession, **body: Any) -> dict[str, dict[str, Any]]:
    """A response of each account."""
    made: dict[str, dict[str, Any]] = {}
    while len(made) < 2:
        response = await proxied(http, **body)
        made[account_in(response)] = response
    return made


async def test_the_response_that_is_continued_decides_before_all_else(pollux: Replica, upstream: Upstream) -> None:
    async with pollux.http() as http:
        by_account = await one_of_each(http)
        for one, other in (("first", "second"), ("second", "first")):
            thought = by_account[other]["output"][0]
            done = await proxied(http, previous_response_id=by_account[one]["id"], input=[thought])
            assert account_in(done) == one
            assert upstream.requests[-1].json["input"] == []


async def test_a_model_of_another_account_gets_the_history_without_its_reasoning(
    upstream: Upstream, store_url: str
) -> None:
    """Whoever changes the model in the middle of a conversation may come to another account."""
    config = make_config(upstream.base_url, api_key="first")
    config["model_list"][1] = make_config(upstream.base_url, api_key="second")["model_list"][1]
    async with alice(config, store_url) as http:
        first = await proxied(http)
        thought, *_ = first["output"]
        done = await proxied(http, model=NATIVE, input=[thought, {"role": "user", "content": "x"}])
        assert account_in(done) == "second"
        assert upstream.requests[-1].json["input"] == [{"role": "user", "content": "x"}]


# Pollux in front of Pollux, each with its own store.


@pytest.mark.parametrize("forms", [("published", "published"), ("opaque", "opaque"), ("published", "opaque")])
async def test_marks_and_ids_nest_and_each_level_takes_off_its_own(
    forms: tuple[str, str], upstream: Upstream, store_url: str, tmp_path: Path
) -> None:
    inner_config = two_accounts(upstream.base_url, composite_ids=forms[0])
    async with running_replica(inner_config, f"embedded://{tmp_path}") as inner:
        outer_config = make_config(f"{inner.url}/v1", api_key=MASTER_KEY, composite_ids=forms[1])
        # Another account, so that the outer one marks too.
        outer_config["model_list"].append({**make_config("http://127.0.0.1:9")["model_list"][0], "model_name": "other"})
        async with alice(outer_config, store_url) as http:
            for make in (proxied, streamed, native, cached):
                first = await make(http)
                assert all(value.count("pollux-account.") == 2 for value in bound_values(first["output"]))
                assert account_in(await make(http, input=first["output"])) == account_in(first)
            first = await native(http)
            path = f"responses/{quote(first['id'], safe='')}"
            for answer in (await http.get(path), await http.get(f"{path}?wait=5")):
                assert (await read(answer))["id"] == first["id"]
            continued = await native(http, previous_response_id=first["id"])
            assert continued["previous_response_id"] == first["id"]
            assert account_in(continued) == account_in(first)


@pytest.mark.parametrize("form", ["published", "opaque"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_native_response_may_be_a_cached_one_of_another_pollux(
    form: str, streamed: bool, simulator: str, store_url: str, tmp_path: Path
) -> None:
    async with running_replica(make_config(simulator), f"embedded://{tmp_path}") as inner:
        config = make_config(f"{inner.url}/v1", api_key=MASTER_KEY, composite_ids=form)
        config["model_list"][1]["litellm_params"]["model"] = f"openai/{CACHED}"
        body = {"model": NATIVE, "background": True, "stream": streamed}
        async with alice(config, store_url) as http:
            first = await begun(await http.post("responses", json={**body, "input": "x"}))
            done = await read(await http.get(f"{path_of(first)}?wait=20"))
            assert (done["id"], done["status"]) == (first["id"], "completed")
            assert (await read(await http.get(f"{path_of(first)}/input_items")))["data"]

            hangs = {**body, "input": "[[first_delay_ms=30000]]", "previous_response_id": first["id"]}
            second = await begun(await http.post("responses", json=hangs))
            assert second["previous_response_id"] == first["id"]
            cancelled = await read(await http.post(f"{path_of(second)}/cancel"))
            assert (cancelled["id"], cancelled["status"]) == (second["id"], "cancelled")
            if streamed:
                events = await read_stream(await http.get(f"{path_of(second)}?stream=true"))
                assert {event["response"]["id"] for event in events if "response" in event} == {second["id"]}
            for response in (first, second):
                assert (await read(await http.delete(path_of(response))))["id"] == response["id"]
                assert (await refusal(await http.get(path_of(response)))).message.count(response["id"][:100]) == 1


def path_of(response: dict[str, Any]) -> str:
    return f"responses/{quote(response['id'], safe='')}"


async def begun(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """The response as it was created; of a stream the first event tells it, and then the client hangs up."""
    if answer.content_type == "application/json":
        return await read(answer)
    response: dict[str, Any] = (await anext(events_of(answer)))["response"]
    answer.close()
    return response
