"""A Redis Cluster of real nodes, started from the program of the embedded server."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from storage.embedded_binary import _candidates
from tests.support.replica import free_port

SLOTS = 16384
KEYS_AT_ONCE = 10
"""How many keys of a slot are moved in one step, as by `redis-cli --cluster reshard`."""


@dataclass
class Node:
    """One server of it, which may be killed, paused and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    client: redis.Redis = field(init=False)

    def __post_init__(self) -> None:
        self.client = redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0), socket_timeout=5)

    def start(self) -> None:
        options = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": self.folder,
            "save": "",
            "appendonly": "yes",
            "cluster-enabled": "yes",
            "cluster-node-timeout": 1500,
            "cluster-config-file": "nodes.conf",
            "repl-diskless-sync-delay": 0,
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [next(_candidates()), *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def cluster(self, *words: Any) -> Any:
        answer = self.client.execute_command("CLUSTER", *words)  # type: ignore[no-untyped-call]
        return answer.decode() if isinstance(answer, bytes) else answer

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def is_primary(self) -> bool:
        about: Any = self.client.info("replication")
        return bool(about["role"] == "master")

    @property
    def is_fine(self) -> bool:
        """Whether it answers, finds all slots served, and has all that its primary has, where it follows one."""
        with suppress(redis.RedisError):
            about: Any = self.client.info("replication")
            return "cluster_state:ok" in self.cluster("INFO") and about.get("master_link_status", "up") == "up"
        return False


@dataclass(frozen=True)
class ClusterServers:
    """Primaries, and behind them as many replicas of each as were asked for."""

    nodes: list[Node]
    primaries: int

    @property
    def url(self) -> str:
        return "cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[: self.primaries])

    def admin(self) -> redis.RedisCluster:
        running = next(node for node in self.nodes if node.runs)
        return redis.RedisCluster(host="127.0.0.1", port=running.port, socket_timeout=5)

    def owner_of(self, key: str) -> Node:
        """The primary that has this key now."""
        with self.admin() as admin:
            port = admin.get_node_from_key(key).port
        return next(node for node in self.nodes if node.port == port)

    def replica_of(self, primary: Node) -> Node:
        """The replica of a primary."""
        followed = primary.cluster("MYID")
        (line,) = [line for line in primary.cluster("NODES").splitlines() if followed in line.split()[3]]
        port = int(line.split()[1].partition("@")[0].rpartition(":")[2])
        return next(node for node in self.nodes if node.port == port)

    def settle(self, timeout_s: float = 20) -> None:
        """Wait until each node that runs finds all well."""
        _until(lambda: all(node.is_fine for node in self.nodes if node.runs), "the cluster is whole", timeout_s)

    def replicate(self, *primaries: Node) -> None:
        """Wait until the replicas of these primaries, or of all, have all that these have now."""
        for node in primaries or self.nodes:
            about: Any = node.client.info("replication")
            if about["role"] == "master":
                _until(partial(_has_reached, node, about["master_repl_offset"]), "a replica has it all")

    def move_slot(self, key: str, source: Node, target: Node, *, pause_s: float = 0.0) -> int:
        """Move the slot of a key to another primary, as an operator does who reshards: ten keys at a time.

        Between them come pauses, in which some keys are here and some are there. Returns how many keys were moved.
        """
        slot = self.open_slot(key, source, target)
        moved = 0
        while keys := source.cluster("GETKEYSINSLOT", slot, KEYS_AT_ONCE):
            self.move_keys(keys, source, target)
            moved += len(keys)
            time.sleep(pause_s)
        self.close_slot(slot, source, target)
        return moved

    def move_slot_at_once(self, key: str, source: Node, target: Node) -> None:
        """Let the servers move the slot of a key: nobody ever sees it half moved. Valkey 9 can do that."""
        slot = source.cluster("KEYSLOT", key)
        source.cluster("MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.cluster("MYID"))
        _until(lambda: self.owner_of(key) is target, "the slot has moved")

    def open_slot(self, key: str, source: Node, target: Node) -> int:
        """Begin to move the slot of a key; its number."""
        slot: int = source.cluster("KEYSLOT", key)
        target.cluster("SETSLOT", slot, "IMPORTING", source.cluster("MYID"))
        source.cluster("SETSLOT", slot, "MIGRATING", target.cluster("MYID"))
        return slot

    def move_keys(self, keys: list[Any], source: Node, target: Node) -> None:
        # Without REPLACE, so that it fails where a key is on both nodes: nobody may write to the slot in two places.
        source.client.migrate("127.0.0.1", target.port, keys, 0, 5000)

    def close_slot(self, slot: int, source: Node, target: Node) -> None:
        """Let all primaries know that the slot has moved."""
        for node in (target, source, *(one for one in self.nodes if one.runs and one.is_primary)):
            node.cluster("SETSLOT", slot, "NODE", target.cluster("MYID"))


@contextmanager
def running_cluster(primaries: int = 3, replicas: int = 0) -> Iterator[ClusterServers]:
    """So many primaries, each with so many replicas. Their directory vanishes with them."""
    with tempfile.TemporaryDirectory(prefix="pollux-cluster-") as directory:
        nodes: list[Node] = []
        try:
            for number in range(primaries * (1 + replicas)):
                folder = Path(directory) / str(number)
                folder.mkdir()
                nodes.append(Node(folder, _free_port_of_a_node()))
                nodes[-1].start()
            _join(nodes, primaries)
            servers = ClusterServers(nodes, primaries)
            servers.settle()
            yield servers
        finally:
            for node in nodes:
                with suppress(ProcessLookupError):
                    node.signal(signal.SIGCONT)
                    node.kill()
                node.client.close()


def _free_port_of_a_node() -> int:
    """Below 55536: its bus listens on the port 10000 above."""
    while (port := free_port()) >= 55536:
        pass
    return port


def _join(nodes: list[Node], primaries: int) -> None:
    for node in nodes:
        _until(lambda node=node: _answers(node), "a node answers")
    for number, node in enumerate(nodes[:primaries]):
        node.cluster("ADDSLOTSRANGE", number * SLOTS // primaries, (number + 1) * SLOTS // primaries - 1)
        node.cluster("SET-CONFIG-EPOCH", number + 1)
    for node in nodes[1:]:
        node.cluster("MEET", "127.0.0.1", nodes[0].port)
    for number, node in enumerate(nodes[primaries:]):
        primary = nodes[number % primaries].cluster("MYID")
        _until(lambda node=node, primary=primary: primary in node.cluster("NODES"), "a replica knows")
        node.cluster("REPLICATE", primary)


def _has_reached(primary: Node, offset: int) -> bool:
    about: Any = primary.client.info("replication")
    followers = [about[f"slave{n}"]["offset"] for n in range(about["connected_slaves"])]
    return bool(followers) and min(followers) >= offset


def _answers(node: Node) -> bool:
    with suppress(redis.RedisError):
        return bool(node.client.ping())
    return False


def _until(condition: Any, what: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)
