"""Redis Cluster: one client that knows which node has which slot.

redis-py follows redirections, and asks for the map of slots again when a node refuses a connection. This module adds
what it lacks: a caller waits for a free place instead of getting an error, nodes that stay silent without closing their
connections are noticed and not asked where the slots are, and several commands can be sent one after the other on one
connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from redis.asyncio import Connection, RedisCluster
from redis.asyncio.cluster import ClusterNode, PipelineCommand
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, RedisClusterException, RedisError

from storage.observer import NOBODY, Observer
from storage.patience import Patience

log = logging.getLogger("pollux.store")

PLACES = 8
"""How many commands of one shard run at once. Each shard has its own limit, so that a silent node delays no other."""
MOST_CONNECTIONS = 1024
"""Connections to one node; redis-py raises beyond it. `PLACES` keeps the number far below."""
SILENT_S = 4.0
"""How long one command, or one exchange, may take before its node counts as silent."""
LOOK_S = 3.0
"""How long the nodes may take to tell where the slots are."""
GRACE_S = 0.3
"""How much longer than the first node to answer the others may take, if they shall be asked where the slots are."""
MOST_CLOSED = 4
"""How many times a command is tried while its connections are closed by the other side."""
MOST_MOVES = 5
"""How many times one exchange follows a slot that has moved to another node."""

Command = tuple[Any, ...]
T = TypeVar("T")


class Cluster(RedisCluster):
    """A client of all nodes. A command must have its key as first argument, or name its target nodes."""

    def __init__(self, nodes: Sequence[tuple[str, int]], **options: Any) -> None:
        super().__init__(
            startup_nodes=[ClusterNode(host, port) for host, port in nodes],
            # While one node is down, the slots of the others are still served.
            require_full_coverage=False,
            max_connections=MOST_CONNECTIONS,
            **options,
        )
        self.commands_parser: Any = _FirstKey()
        self.observer: Observer = NOBODY
        self.in_use = 0
        """How many commands are with the servers now."""
        self._places: dict[str, asyncio.Semaphore] = {}
        self._patience = Patience(SILENT_S)
        self._looking: asyncio.Task[None] | None = None
        self._learning = asyncio.Lock()

    async def initialize(
        self,
        additional_startup_nodes_info: list[tuple[str, int]] | None = None,
        last_failed_node_name: str | None = None,
    ) -> RedisCluster:
        """Learn where the slots are, unless that is known."""
        # Some of redis-py's commands call this before they come to our deadline.
        ask = partial(super().initialize, additional_startup_nodes_info, last_failed_node_name)
        if self._initialize:
            await self._learn(ask, again=False)
        return self

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Return the answer to one command. If a node refuses the connection, redis-py itself tries again."""
        return await self._bounded(_key_of(args), partial(super().execute_command, *args, **kwargs), RuntimeError)

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands one after the other on one connection, to the node of the first one's key.

        Returns one answer for each command; where a command failed, its answer is the error.
        """
        key = _key_of(commands[0])
        return await self._bounded(key, partial(self._exchange, key, commands), RuntimeError, RedisConnectionError)

    async def _bounded(self, key: str, attempt: Callable[[], Awaitable[T]], *closed: type[Exception]) -> T:
        """Run `attempt` in a place of its shard and under a deadline, and again if it raises one of `closed`.

        `closed` contains RuntimeError because uvloop raises that on a connection which another command has just found
        broken and closed.
        """
        failure: Exception | None = None
        async with self._place(key):
            self.in_use += 1
            try:
                async with self._patience.limit():
                    for _ in range(MOST_CLOSED):
                        try:
                            return await attempt()
                        except closed as error:
                            failure = error
            except TimeoutError:
                self._suspect(key)
                raise
            finally:
                self.in_use -= 1
        self._suspect(key)
        raise RedisConnectionError(f"connections to this node are closed again and again: {failure}") from failure

    async def _exchange(self, key: str, commands: Sequence[Command]) -> list[Any]:
        await self.initialize()
        answers: list[Any] = []
        for _ in range(MOST_MOVES):
            sent = [PipelineCommand(number, *command) for number, command in enumerate(commands)]
            node = self.get_node_from_key(key)
            if node is None:
                raise RedisClusterException("the slot has no node")
            await node.execute_pipeline(sent)
            answers = [command.result for command in sent]
            moved = next((answer for answer in answers if isinstance(answer, MovedError)), None)
            if moved is None:
                break
            await self.nodes_manager.move_slot(moved)
        for answer in answers:
            if isinstance(answer, RedisConnectionError):
                raise answer
        return answers

    def new_connection(self, **options: Any) -> Connection:
        """Make a connection to any node, outside every pool; the caller disconnects it."""
        node = random.choice(self.get_nodes() or list(self.nodes_manager.startup_nodes.values()))  # noqa: S311
        return node.connection_class(**{**node.connection_kwargs, **options})

    async def aclose(self) -> None:
        """Close all connections, including those to nodes that are no longer in the map of slots."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await super().aclose()
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")

    def _place(self, key: str) -> asyncio.Semaphore:
        """The semaphore of a key's shard: all keys of a shard have the same hash tag."""
        tag = key.partition("}")[0]
        return self._places.get(tag) or self._places.setdefault(tag, asyncio.Semaphore(PLACES))

    def _suspect(self, key: str) -> None:
        """Ask the other nodes where the slots are: a replica may have taken over from this silent node."""
        if self._looking is not None and not self._looking.done():
            return
        with contextlib.suppress(RedisClusterException):  # raised while the slot has no node
            node = self.get_node_from_key(key)
            if node is not None:
                self._looking = asyncio.create_task(self._look_again(node.name), name="look at the cluster")

    async def _look_again(self, silent: str) -> None:
        try:
            await self._learn(partial(self.nodes_manager.initialize, last_failed_node_name=silent), again=True)
        except (RedisError, RedisClusterException, OSError) as error:
            log.debug("the nodes of the cluster could not be asked: %s", error)

    async def _learn(self, ask: Callable[[], Awaitable[Any]], *, again: bool) -> None:
        """Have redis-py `ask` where the slots are, but only those nodes that answer; `again` even if that is known.

        redis-py asks one node after the other, in a random order, and waits for each for ever.
        """
        manager = self.nodes_manager
        try:
            async with asyncio.timeout(LOOK_S), self._learning:
                if not (again or self._initialize):
                    return  # the caller before has learned it
                known = manager.startup_nodes
                manager.startup_nodes = await _those_that_answer(known)
                try:
                    await ask()
                except BaseException:
                    manager.startup_nodes = known
                    raise
        except TimeoutError as silence:
            raise RedisConnectionError("no node of the cluster tells where the slots are") from silence


async def _those_that_answer(nodes: dict[str, ClusterNode]) -> dict[str, ClusterNode]:
    """The nodes that answer soon after the first one; all, if none can be reached. Waits while none answers."""
    pings = {name: asyncio.create_task(_ping(node)) for name, node in nodes.items()}
    try:
        waiting = set(pings.values())
        while waiting and not any(_has_answered(ping) for ping in pings.values()):
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if waiting:
            await asyncio.wait(waiting, timeout=GRACE_S)
        return {name: nodes[name] for name, ping in pings.items() if _has_answered(ping)} or nodes
    finally:
        for ping in pings.values():
            ping.cancel()
        await asyncio.gather(*pings.values(), return_exceptions=True)


async def _ping(node: ClusterNode) -> None:
    """Return when the node has answered, on a new connection: those that were open before may all have been cut."""
    node.update_active_connections_for_reconnect()
    await node.disconnect_free_connections()
    await node.execute_command("PING")


def _has_answered(ping: asyncio.Task[None]) -> bool:
    return ping.done() and not ping.cancelled() and ping.exception() is None


class _FirstKey:
    """Tells redis-py which argument is the key. Its own parser would ask a node, which may be the silent one."""

    async def initialize(self, _node: Any) -> None:
        pass

    async def get_keys(self, *command: Any) -> list[str]:
        return [_key_of(command)]


def _key_of(command: Command) -> str:
    """The first key of a command; empty where it has none."""
    at = 3 if command[0] in ("EVALSHA", "EVAL") else 1
    return str(command[at]) if len(command) > at else ""
