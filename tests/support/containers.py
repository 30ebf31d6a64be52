"""Containers of the image and of compose.yaml, as `.ci/image` lets podman run them."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
PLACE = os.environ.get("POLLUX_TEST_CONTAINERS", "")
"""Where `.ci/image` keeps Docker Compose and podman's socket; it is set there alone."""
IMAGE = "docker.io/library/pollux"
BASE = "docker.io/library/python:3.13-slim"
BOUNDS = ("cpus", "mem_limit", "pids_limit", "ulimits")
WITHIN_S = 120

needs_containers = pytest.mark.skipif(not PLACE, reason="it takes containers: `make image-test` makes them")


def podman(*words: str | Path) -> str:
    return _run("podman", *words)


def logged_by(container: str) -> list[str]:
    done = subprocess.run(
        ("podman", "logs", container), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return done.stdout.splitlines()


def inspected(kind: str, name: str) -> dict[str, Any]:
    [found] = json.loads(podman(kind, "inspect", name))
    answer: dict[str, Any] = found
    return answer


def processes_in(container: str) -> list[tuple[int, str, str]]:
    """Id, state (Z is a zombie) and name of each process, as the container sees them."""
    lines = podman("exec", container, "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null || true").splitlines()
    found = []
    for line in lines:
        number, name = line[: line.rindex(")")].split(" (", 1)
        found.append((int(number), line[line.rindex(")") + 2 :].split()[0], name))
    return found


class Composition:
    """The services of compose.yaml, but Grafana, with what the machine and the time of a test ask for changed."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        """`settings` replace some of `pollux:` in the config."""
        shipped = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
        config = yaml.safe_load((DEPLOY / shipped["configs"]["pollux"]["file"]).read_text())
        config["pollux"] |= settings
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        # There are no control groups here that could bound anything, and the limits of files are the machine's own.
        without_bounds = "".join(
            f"  {name}: {{{', '.join(f'{bound}: !reset null' for bound in BOUNDS)}}}\n" for name in shipped["services"]
        )
        changed = f"configs:\n  pollux: {{file: {folder}/config.yaml}}\nservices:\n{without_bounds}"
        (folder / "changed.yaml").write_text(changed)
        files = (DEPLOY / "compose.yaml", folder / "changed.yaml")
        self._command = [f"{PLACE}/docker-compose", *(word for file in files for word in ("--file", str(file)))]

    def __call__(self, *words: str) -> str:
        return _run(*self._command, *words, DOCKER_HOST=f"unix://{PLACE}/podman.sock", DOCKER_CONFIG=PLACE)

    def container(self, service: str) -> str:
        return f"pollux-{service}-1"

    def restart(self, service: str) -> None:
        """As the head of compose.yaml says."""
        self("up", "--no-build", "--detach", "--wait", "--no-deps", "--force-recreate", service)

    @contextmanager
    def up(self) -> Iterator[None]:
        with _checked_by_hand():
            try:
                self("up", "--no-build", "--detach", "--wait", "nginx", "prometheus")
                yield
            except BaseException:
                print(self("logs", "--no-color", "--tail", "50"))
                raise
            finally:
                self("down", "--volumes", "--timeout", "1")


@contextmanager
def _checked_by_hand() -> Iterator[None]:
    """Podman leaves it to systemd to repeat the health checks. Here it is a thread that does, until all are healthy."""
    over = threading.Event()

    def check() -> None:
        while not over.wait(0.3):
            for name in podman("ps", "--filter", "health=starting", "--format", "{{.Names}}").split():
                with suppress(subprocess.CalledProcessError):  # it is not healthy yet, or gone
                    podman("healthcheck", "run", name)

    thread = threading.Thread(target=check, name="health checks")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=WITHIN_S
    )
    if done.returncode:
        failed = subprocess.CalledProcessError(done.returncode, command)
        failed.add_note((done.stdout + done.stderr)[-4000:])
        raise failed
    return done.stdout
