"""The link between the parent of several processes and each of them: a socket pair.

A message is one byte. With some, a file goes along, which has no name and holds configs: so all processes have what
their parent has checked, whatever becomes of the files that it has read, and no key lies in the parent's memory.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from server.config.includes import Merged
from server.reload.reload import Report

SERVING, APPLIED, REFUSED = b"s", b"a", b"r"
"""What a child says: it serves; it has applied the config that it was sent, or could not."""
LEAVE, DRAIN, HURRY, CONFIG = b"l", b"d", b"h", b"c"
"""What the parent says. `CONFIG` comes with a file."""
MOST_WORDS = 64
MOST_FILES = 8


class Link:
    """The child's end."""

    def __init__(self, descriptor: int) -> None:
        """Wait for the configs that the parent sends first.

        Raises:
            OSError: the parent is gone

        """
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        words, files = self._receive()
        if words[:1] != CONFIG:
            raise OSError("the parent of this process is gone")
        configs = read_configs(files.pop(0))
        self.first, self.newest = configs[0], configs[-1]
        """What the server was started with, and what was read last."""
        self._early = words[1:], files
        self._socket.setblocking(False)

    def obey(
        self, orders: Mapping[bytes, Callable[[], None]], gone: Callable[[], None], reload: Callable[[], None]
    ) -> None:
        """Follow what the parent says from now on. `gone` is called when it can't say anything more.

        `reload` is called when there is another `newest`, and what came of it is to be told for each call.
        """

        def read() -> None:
            try:
                words, files = self._receive()
            except ConnectionError:
                words, files = b"", []
            follow(words, files)
            if not words:
                gone()
                asyncio.get_running_loop().remove_reader(self._socket)

        def follow(words: bytes, files: list[int]) -> None:
            for word in (words[index : index + 1] for index in range(len(words))):
                if word == CONFIG:
                    self.newest = read_configs(files.pop(0))[-1]
                    reload()
                elif word in orders:
                    orders[word]()

        follow(*self._early)
        asyncio.get_running_loop().add_reader(self._socket, read)

    def tell(self, word: bytes) -> None:
        with suppress(OSError):  # the parent is gone: `obey` notices that
            self._socket.send(word)

    def tell_of(self, report: Report) -> None:
        """Tell what came of a reload."""
        self.tell(APPLIED if report.applied else REFUSED)

    def _receive(self) -> tuple[bytes, list[int]]:
        words, files, _, _ = socket.recv_fds(self._socket, MOST_WORDS, MOST_FILES)
        return words, files


class Child:
    """The parent's end."""

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)
        self._socket = link
        self._reloads = deque[asyncio.Future[bool]]()
        """Those that the child has not told of yet."""
        self.serves = False

    def tell(self, word: bytes) -> None:
        with suppress(OSError):  # it is gone: `listen` ends
            self._socket.send(word)

    def send(self, config: int) -> bool:
        """Send a file of configs. Returns whether the child can get it."""
        try:
            socket.send_fds(self._socket, [CONFIG], [config])
        except OSError:
            return False  # it is gone, or has not listened for so long that it hangs
        return True

    def reload(self, config: int) -> asyncio.Future[bool]:
        """Send another config. The result is whether the child has applied it; one that ends does not matter."""
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self.send(config):
            self._reloads.append(told)
        else:
            told.set_result(True)
        return told

    async def listen(self, serves: Callable[[], None]) -> None:
        """Listen to the child until it ends; `serves` is called once it serves."""
        with suppress(ConnectionError):
            while word := await asyncio.get_running_loop().sock_recv(self._socket, 1):
                if word == SERVING:
                    self.serves = True
                    serves()
                elif self._reloads:
                    self._settle(applied=word == APPLIED)
        while self._reloads:
            self._settle(applied=True)

    def _settle(self, *, applied: bool) -> None:
        self._reloads.popleft().set_result(applied)


def config_file(*configs: bytes) -> int:
    """The descriptor of a file without a name that holds these, each as `Merged.as_yaml` gives it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pollux-config")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    with open(descriptor, "wb", closefd=False) as file:
        file.writelines(configs)
    return descriptor


def text_of(descriptor: int) -> bytes:
    """All that such a file holds. Its position is not moved, because all who have the file share it."""
    text = bytearray()
    while piece := os.pread(descriptor, 1 << 20, len(text)):
        text += piece
    return bytes(text)


def read_configs(descriptor: int) -> Sequence[Merged]:
    """The configs in such a file. Closes the descriptor."""
    try:
        return Merged.all_in(text_of(descriptor))
    finally:
        os.close(descriptor)
