"""The chain: what was said before, for providers that keep nothing.

`previous_response_id` names a response, and that one may name another. Where the provider of a new response knows the
first one, it continues it by its id. Elsewhere the turns of the chain, as far as they are stored here, are put in front
of the input. References to single items are resolved in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from server.errors import InvalidValue, PreviousNotFinished, PreviousNotFound
from server.keyring import MASTER
from server.protocol import jsontext
from server.protocol.ids import normal_id, seed_in
from server.protocol.requests import stored_request
from server.upstream.deployments import Deployment, Deployments
from storage import Reading, Store

Item = dict[str, Any]

MOST_TURNS = 1000
MOST_BYTES = 64 * 1024 * 1024
"""How much may be put in front of an input."""
_CUT = ("in_progress", "incomplete")
"""How far a call had come when its response failed or was cancelled in the middle of it."""
_OF_ONE_PROVIDER = frozenset({"message", "function_call", "custom_tool_call"})
"""Items whose ids only the provider that gave them knows; they say the same without."""


@dataclass(frozen=True)
class Turn:
    """One response of the chain: what was asked, and what was answered."""

    deployment: Deployment | None
    """Where it was made; None if that is not configured any more."""
    input: list[Any]
    output: list[Any]

    def _can_read(self, reasoning: Item, deployment: Deployment) -> bool:
        """Whether this deployment can read the reasoning: its account made it, and the item says it.

        A provider of Responses looks up what an item of its own does not say, and refuses one that it has not kept.
        """
        is_theirs = self.deployment is not None and self.deployment.same_account(deployment)
        return is_theirs and (bool(reasoning.get("encrypted_content")) or not deployment.keeps_responses)

    def told_to(self, deployment: Deployment) -> Iterator[Any]:
        """Its items as they can be told to this deployment."""
        yield from self.input
        for item in self.output:
            if not isinstance(item, dict) or (item.get("type") == "reasoning" and not self._can_read(item, deployment)):
                continue
            if item.get("status") in _CUT and str(item.get("type")).endswith("_call"):
                continue  # nobody can have run it, and a call without an output is refused
            if item.get("type") in _OF_ONE_PROVIDER:
                yield _told_anew(item)
            else:
                yield item


@dataclass(frozen=True)
class History:
    """What precedes one request."""

    turns: list[Turn] = field(default_factory=list)
    referred: dict[str, Item] = field(default_factory=dict)
    """Items that the request refers to, by id."""

    def __bool__(self) -> bool:
        return bool(self.turns or self.referred)

    def put_into(self, body: dict[str, Any], deployment: Deployment) -> dict[str, Any]:
        """The request that says everything itself."""
        if not self:
            return body
        before = [item for turn in self.turns for item in turn.told_to(deployment)]
        made = {**body, "input": [self._resolved(item) for item in [*before, *_items(body)]]}
        if self.turns:
            del made["previous_response_id"]
        return made

    def _resolved(self, item: Any) -> Any:
        found = self.referred.get(item.get("id", "")) if _is_reference(item) else None
        return item if found is None else _told_anew(found)


class Chain:
    """Reads what was said before out of the store."""

    def __init__(self, store: Store, deployments: Deployments, id_prefix: str) -> None:
        self._store = store
        self._deployments = deployments
        self._id_prefix = id_prefix

    async def before(self, body: dict[str, Any], owner: str, *, follow: bool) -> History:
        """What precedes a request of this owner. `follow`: its `previous_response_id` is not left to the provider.

        Raises:
            PreviousNotFound, PreviousNotFinished, InvalidValue
            StoreError

        """
        turns = await self._turns(body.get("previous_response_id"), owner) if follow else []
        asked = [*(item for turn in turns for item in turn.input), *_items(body)]
        named = {str(item["id"]) for item in asked if _is_reference(item)}
        referred = await self._referred(named, turns, owner) if named else {}
        return History(turns, referred)

    async def _turns(self, response_id: Any, owner: str) -> list[Turn]:
        """The turns of a chain, the first one first."""
        turns: list[Turn] = []
        size, newest = 0, response_id
        while isinstance(response_id, str) and response_id:
            reading = await self._store.responses.read(normal_id(response_id))
            if reading is None or owner not in (MASTER, reading.record.owner):
                why = "not found" if response_id == newest else f"can't be continued: '{response_id}' before it is gone"
                raise PreviousNotFound(newest, why)
            if not reading.snapshot:
                raise PreviousNotFinished(response_id, reading.record.status)
            size += len(reading.request) + len(reading.snapshot)
            if len(turns) >= MOST_TURNS or size > MOST_BYTES:
                raise PreviousNotFound(newest, "can't be continued: the turns before it are too long together")
            request = stored_request(reading.request)
            turns.append(self._turn(reading, request))
            response_id = request.get("previous_response_id")
        turns.reverse()
        return turns

    def _turn(self, reading: Reading, request: dict[str, Any]) -> Turn:
        output = jsontext.loads(reading.snapshot).get("output")
        deployment = self._deployments.get(reading.record.ran_on)
        return Turn(deployment, _items(request), output if isinstance(output, list) else [])

    async def _referred(self, named: set[str], turns: list[Turn], owner: str) -> dict[str, Item]:
        """The items with these ids. Those that nobody here knows are left to the provider.

        Raises:
            InvalidValue: they are in too many responses
            StoreError

        """
        found = {item["id"]: item for turn in turns for item in turn.output if _has_id(item)}
        seeds = {seed for item_id in named - found.keys() if (seed := seed_in(item_id)) is not None}
        if len(seeds) > MOST_TURNS:
            raise InvalidValue(f"The input refers to items of more than {MOST_TURNS} responses.", param="input")
        for seed in seeds:
            for response_id in await self._holders(seed, owner):
                reading = await self._store.responses.read(response_id)
                if reading is not None and reading.snapshot and owner in (MASTER, reading.record.owner):
                    found |= {item["id"]: item for item in self._turn(reading, {}).output if _has_id(item)}
        return {item_id: found[item_id] for item_id in named & found.keys()}

    async def _holders(self, seed: str, owner: str) -> list[str]:
        """The ids of the responses that may hold the items with this in their ids, if they were made here."""
        kept = await self._store.responses.kept_with(owner, seed)
        return [f"{self._id_prefix}{UUID(seed)}", *([kept] if kept else [])]


def _told_anew(item: Item) -> Item:
    """The item without what only the provider that made it knows."""
    return {name: value for name, value in item.items() if name not in ("id", "status")}


def _has_id(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("id"), str)


def _items(body: dict[str, Any]) -> list[Any]:
    given = body.get("input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return given if isinstance(given, list) else []


def _is_reference(item: Any) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        return False
    return item.get("type") == "item_reference" or not (item.get("type") or "role" in item)
