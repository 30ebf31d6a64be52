"""The process that others are forked from: it loads Pollux, and then does nothing but fork and wait."""

from __future__ import annotations

import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from importlib import import_module
from typing import Any

LARGEST_REQUEST = 1 << 20


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    import_module("server.cli.serve")
    gc.collect()
    gc.freeze()
    if wanted := _asked(control):
        _be(wanted)


def _asked(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each request until nobody is left to ask. Returns in the forks, with what they shall be, and at the end.

    Whoever is left then dies too: nobody waits for it.
    """
    told, tell = socket.socketpair()
    told.setblocking(False)
    tell.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tell.fileno())
    children: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(told, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if told in ready:
                told.recv(4096)
                _tell_of_the_dead(children)
            if control in ready:
                request, (*descriptors,), _, _ = socket.recv_fds(control, LARGEST_REQUEST, 1)
                if not request:
                    break
                news = socket.socket(fileno=descriptors[0])
                if (pid := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for opened in (control, told, tell, news, *children.values()):
                        opened.close()
                    wanted: dict[str, Any] = json.loads(request)
                    return wanted
                children[pid] = news
                news.sendall(b"%d\n" % pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    return None


def _tell_of_the_dead(children: dict[int, socket.socket]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with children.pop(pid) as news:
            try:
                news.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            except OSError:
                continue  # nobody wants to know


def _be(wanted: dict[str, Any]) -> None:
    """Become the process that was asked for."""
    log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(wanted["environ"])
    os.chdir(wanted["cwd"])
    sys.argv = ["server", *wanted["words"]]
    exec(wanted["before"], {"__name__": "__main__"})
    runpy.run_module("server", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
