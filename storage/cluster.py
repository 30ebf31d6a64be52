"""Redis Cluster: one client that knows where each slot lives, bounded and patient as the pools of one server are.

redis-py follows the redirections and learns the map of slots anew when a node refuses a connection. What it lacks is
here: callers that wait for their turn instead of an error, a node that is silent instead of gone, and commands that
must follow each other on one connection.
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

from storage.patience import Patience

log = logging.getLogger("pollux.store")

PLACES = 8
"""Commands at once for one shard: the others' must not wait because one node is silent."""
MOST_CONNECTIONS = 1024
"""Per node; redis-py raises beyond it. Never reached: `PLACES` bounds what is in use."""
SILENT_S = 4.0
"""Before the deadline of every exchange, which would not tell which node it was."""
LOOK_S = 3.0
MOST_CLOSED = 4
"""How often a command is sent again because its connection was closed under it."""
MOST_MOVES = 5
"""How often a slot is looked for anew in one exchange."""

Command = tuple[Any, ...]
T = TypeVar("T")


class Cluster(RedisCluster):
    """A client of all nodes. Every command names its key first, or its target nodes."""

    def __init__(self, nodes: Sequence[tuple[str, int]], **options: Any) -> None:
        super().__init__(
            startup_nodes=[ClusterNode(host, port) for host, port in nodes],
            # What lies on the nodes that are there is served while another one is not.
            require_full_coverage=False,
            max_connections=MOST_CONNECTIONS,
            **options,
        )
        self.commands_parser: Any = _FirstKey()
        self._places: dict[str, asyncio.Semaphore] = {}
        self._patience = Patience(SILENT_S)
        self._looking: asyncio.Task[None] | None = None
        self._silent: str | None = None
        """The node that did not answer lately: the others are asked before it where the slots are."""

    async def initialize(
        self,
        additional_startup_nodes_info: list[tuple[str, int]] | None = None,
        last_failed_node_name: str | None = None,
    ) -> RedisCluster:
        """Learn where the slots are, if that is not known (any more)."""
        # One whose connections broke answers, or refuses, at once: only the silent one must not be asked first.
        return await super().initialize(additional_startup_nodes_info, self._silent or last_failed_node_name)

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """The answer to one command. (Where a node refuses a connection, redis-py itself tries again.)"""
        return await self._bounded(_key_of(args), partial(super().execute_command, *args, **kwargs), RuntimeError)

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to commands that follow each other on one connection, to the node of the first one's key.

        An error is the answer to its own command.
        """
        key = _key_of(commands[0])
        return await self._bounded(key, partial(self._exchange, key, commands), RuntimeError, RedisConnectionError)

    async def _bounded(self, key: str, attempt: Callable[[], Awaitable[T]], *closed: type[Exception]) -> T:
        """What `attempt` returns, in its turn and in time. It is made again where it ends with one of `closed`.

        RuntimeError is uvloop's word for a connection that another command has found broken, and closed, in this very
        instant.
        """
        failure: Exception | None = None
        async with self._place(key):
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
        """A connection to any node, outside every pool; the caller disconnects it."""
        node = random.choice(self.get_nodes() or list(self.nodes_manager.startup_nodes.values()))  # noqa: S311
        return node.connection_class(**{**node.connection_kwargs, **options})

    async def aclose(self) -> None:
        """End all connections, also those of nodes that could not be reached lately."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await super().aclose()
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")

    def _place(self, key: str) -> asyncio.Semaphore:
        """All keys of a shard have one hash tag."""
        tag = key.partition("}")[0]
        return self._places.get(tag) or self._places.setdefault(tag, asyncio.Semaphore(PLACES))

    def _suspect(self, key: str) -> None:
        """Ask the other nodes where the slots are now: this one may have been replaced, and can't tell."""
        if self._looking is not None and not self._looking.done():
            return
        with contextlib.suppress(RedisClusterException):  # the slot has no node now
            node = self.get_node_from_key(key)
            if node is not None:
                self._silent = node.name
                self._looking = asyncio.create_task(self._look_again(node.name), name="look at the cluster")

    async def _look_again(self, silent: str) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                await self.nodes_manager.initialize(last_failed_node_name=silent)
        except (RedisError, RedisClusterException, OSError) as error:
            log.debug("the nodes of the cluster could not be asked: %s", error)


class _FirstKey:
    """In place of what redis-py learns from a node about every command there is, the silent one perhaps."""

    async def initialize(self, _node: Any) -> None:
        pass

    async def get_keys(self, *command: Any) -> list[str]:
        return [_key_of(command)]


def _key_of(command: Command) -> str:
    """The first key; empty where there is none."""
    at = 3 if command[0] in ("EVALSHA", "EVAL") else 1
    return str(command[at]) if len(command) > at else ""
