"""What Pollux does, shown from end to end: `make demo`.

It starts `pollux simulate` as the provider and `pollux serve` on an embedded store, and talks to them as any client
does, over public HTTP only. Every ✓ is a claim that was just checked; the first that does not hold ends the demo.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import io
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
KEY, CACHED, NATIVE = "sk-1234", "gpt-5.2", "o4-mini-deep-research"
CLAUDE = "claude-sonnet-4-5-20250929"
RESPONSES, TRAFFIC = "/v1/responses", ("GET", "/simulator/requests")
UNFINISHED = ("queued", "in_progress")
LEASE_S = 2  # The default is 15. Here somebody watches while the job of a killed process is taken over.
WHOLE_DEMO_S = 55  # It takes some 15 s; what hangs is a failure too.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
START_S, END_S, ANSWER_S = 20, 15, 40  # For one process, and for one request: longer than the longest wait.

COLOURED = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
BOLD, DIM, RED, GREEN = 1, 2, 31, 32
STARTED = time.monotonic()


class Failed(Exception):
    """The demo can't go on. The message says why."""


def painted(text: str, colour: int) -> str:
    return f"\033[{colour}m{text}\033[0m" if COLOURED else text


def say(text: str) -> None:
    print(f"{painted(f'{time.monotonic() - STARTED:6.2f} s', DIM)}  {text}", flush=True)


def title(text: str) -> None:
    print(f"\n{painted(text, BOLD)}", flush=True)


def check(condition: object, claim: str, found: object) -> None:
    """Show that a claim holds, or show that it does not, and what was found instead, and raise `Failed`."""
    if not condition:
        say(painted(f"✗ {claim} (found: {found!r})", RED))
        raise Failed(f"this claim does not hold: {claim}")
    say(f"{painted('✓', GREEN)} {claim}")


def clipped(text: str) -> str:
    return text if len(text) <= 76 else f"…{text[-75:]}"


# The two servers.


@contextmanager
def undertaker() -> Iterator[IO[bytes]]:
    """Takes the ids of processes, one a line, and ends them should this process die in the block, even of a kill -9.

    It reads from a pipe that only we hold open: when we are gone, it reads the end.
    """
    burying = 'while read pid; do all="$all $pid"; done; kill $all'
    with subprocess.Popen(
        ["sh", "-c", burying], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        assert process.stdin is not None
        yield process.stdin
        process.kill()  # In order, nothing is left to be done; those ids may be others' by now.


@dataclass
class Server:
    """A process of ours, from before its start until after its end."""

    name: str
    port: int
    command: list[str]
    log: Path
    mourned_by: IO[bytes]
    process: subprocess.Popen[bytes] | None = None

    def start(self, path: str) -> None:
        """Return when it answers at this path."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server", *self.command, "--port", str(self.port)],
                cwd=ROOT,
                # Settings from the surroundings, such as POLLUX_STORE, would overrule our config.
                env={name: value for name, value in os.environ.items() if not name.startswith("POLLUX_")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only us, and we end them in order.
            )
        self.mourned_by.write(b"%d\n" % self.process.pid)
        self.mourned_by.flush()
        deadline = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < deadline:
            with suppress(ConnectionError), self.ask("GET", path) as answer:
                if answer.status == 200:
                    return say(f"{self.name} serves at http://127.0.0.1:{self.port} (process {self.process.pid})")
            time.sleep(0.05)
        raise Failed(f"the {self.name} does not serve")

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, if it still runs; kill it, if it takes too long."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is not None:
            say(painted(f"the {self.name} had ended by itself, with exit code {process.returncode}", RED))
        process.send_signal(how)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            say(painted(f"the {self.name} does not end and is killed", RED))
            process.kill()
            process.wait()

    @contextmanager
    def ask(self, method: str, path: str, body: Json | None = None, etag: str = "") -> Iterator[HTTPResponse]:
        """An answer, to be read inside the block; leaving the block hangs up."""
        headers = {"Authorization": f"Bearer {KEY}"} | ({"If-None-Match": etag} if etag else {})
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)) as connection:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            with connection.getresponse() as answer:
                yield answer

    def call(self, method: str, path: str, body: Json | None = None, etag: str = "") -> tuple[Json, str]:
        """The object of an answer, and its entity tag. No object when it is still the one of `etag`."""
        with self.ask(method, path, body, etag) as answer:
            if answer.status not in (200, 304):
                raise Failed(f"{method} {path} was answered {answer.status}: {answer.read().decode()}")
            return (json.load(answer) if answer.status == 200 else {}), answer.headers.get("ETag", "")


@contextmanager
def running_pair(folder: Path, port: int, simulator_port: int) -> Iterator[tuple[Server, Server]]:
    """Pollux and the simulator, serving. However the block is left, nothing that was started goes on running."""
    upstream = {"api_base": f"http://127.0.0.1:{simulator_port}/v1", "api_key": "sk-simulated"}
    served = [("openai", CACHED), ("openai", NATIVE), ("anthropic", CLAUDE)]
    models = [{"model_name": m, "litellm_params": {"model": f"{p}/{m}", **upstream}} for p, m in served]
    modes = {"polling_via_cache": "all", "native_background_mode": [NATIVE]}
    config = {
        "model_list": models,
        "litellm_settings": {"responses": {"background_mode": modes}},
        "general_settings": {"master_key": KEY},
        "pollux": {
            "store": f"embedded://{quote(str(folder / 'store'))}",
            "lease_s": LEASE_S,
            "drain_s": 1,
            "drain_grace_s": 0,
        },
    }
    file = folder / "config.yaml"
    file.write_text(json.dumps(config, indent=2))  # JSON is YAML.
    with undertaker() as mourner:
        simulator = Server("simulator", simulator_port, ["simulate"], folder / "simulator.log", mourner)
        pollux = Server("pollux", port, ["serve", "--config", str(file)], folder / "pollux.log", mourner)
        try:
            simulator.start("/v1/models")
            pollux.start("/readyz")
            yield pollux, simulator
        finally:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # A second Ctrl-C would leave half of it running.
            pollux.end()
            end_store(folder / "store" / "server.lock")
            simulator.end()


def end_store(lock: Path) -> None:
    """End the embedded server that a killed Pollux leaves behind, for a next start to adopt.

    It holds this lock for as long as it lives, and the file says which process it is.
    """
    if not lock.exists():
        return
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.kill(int(file.read()), signal.SIGTERM)
            fcntl.flock(file, fcntl.LOCK_EX)


# What a client does.


def request_for(model: str, text: str, *, stream: bool = False, **steering: int) -> Json:
    """The body of a create call. The steering is for the simulator, which finds it in the metadata."""
    metadata = {name: str(value) for name, value in steering.items()}
    return {"model": model, "input": text, "background": True, "stream": stream, "metadata": metadata}


def states(pollux: Server, response: Json, etag: str) -> Iterator[Json]:
    """Each new state of a response until its end: a GET is answered as soon as there is anything else."""
    while response["status"] in UNFINISHED:
        newer, etag = pollux.call("GET", f"{path_of(response)}?wait=10", etag=etag)
        if newer:
            response = newer
            yield response


def begun(pollux: Server, request: Json) -> Json:
    """A new cached response, with some of its output."""
    for state in states(pollux, *pollux.call("POST", RESPONSES, request)):
        if len(text_of(state).split()) > 9:
            say(f"  {state['id']}  {state['status']}: {text_of(state)} …")
            return state
    raise Failed("a response ended before its time")


def ended(pollux: Server, response: Json) -> Json:
    """The response at its end: one GET, held until then, unless it takes very long."""
    while response["status"] in UNFINISHED:
        response, _ = pollux.call("GET", f"{path_of(response)}?wait=30")
    return response


def events_of(answer: HTTPResponse) -> Iterator[Json]:
    if answer.status != 200:
        raise Failed(f"a stream was answered {answer.status}: {answer.read().decode()}")
    yield from (json.loads(line.removeprefix(b"data: ")) for line in answer if line.startswith(b"data: "))


def path_of(response: Json) -> str:
    return f"{RESPONSES}/{quote(response['id'], safe='')}"  # Base64 may hold a slash.


def text_of(response: Json) -> str:
    return "".join(part.get("text", "") for item in response["output"] for part in item["content"])


# The six parts.


def show_partial_output(pollux: Server) -> None:
    title("1  A cached run: answered at once, and its output grows while the client polls")
    question = "Tell me a three sentence bedtime story about a unicorn"
    created, etag = pollux.call("POST", RESPONSES, request_for(CACHED, question, words=48, delay_ms=50))
    say(f"  {created['id']}")
    check(created["status"] == "queued" and not created["output"], "the create call is answered: queued", created)
    texts, shown, last = [""], 0, created
    for last in states(pollux, created, etag):
        texts.append(text_of(last))
        if len(texts[-1].split()) >= shown + 8 or last["status"] not in UNFINISHED:
            shown = len(texts[-1].split())
            say(f"  {last['status']:<11}  {clipped(texts[-1])}")
    check(last["status"] == "completed" and last["usage"], "it is completed, with its usage", last)
    check(texts[-1].startswith(f"You said: {question}"), "the output is the answer to its input", texts[-1])
    grown = [len(after) - len(before) for before, after in itertools.pairwise(texts) if after.startswith(before)]
    steps = sum(step > 0 for step in grown)
    check(len(grown) == len(texts) - 1 and steps > 5, f"its text grew in {steps} steps, and never shrank", texts)


def show_resumed_stream(pollux: Server) -> None:
    title("2  A stream: broken off by the client, and resumed where it was")
    request = request_for(CACHED, "Count to a hundred", stream=True, words=60, delay_ms=40)
    with pollux.ask("POST", RESPONSES, request) as answer:
        events = list(itertools.islice(events_of(answer), 16))
    running, _ = pollux.call("GET", path_of(events[0]["response"]))
    say(f"  {running['id']}  broken off after event {events[-1]['sequence_number']}, {events[-1]['type']}")
    check(running["status"] == "in_progress", "the run goes on without its client", running)
    with pollux.ask("GET", f"{path_of(running)}?stream=true&starting_after=15") as answer:
        rest = list(events_of(answer))
    check(rest[0]["sequence_number"] == 16, "with starting_after=15 the stream goes on with event 16", rest[0])
    events += rest
    numbers = [event["sequence_number"] for event in events]
    whole = numbers == list(range(len(events))) and rest[-1]["type"] == "response.completed"
    check(whole, f"both halves are the events 0 to {len(events) - 1}, up to response.completed", numbers)
    joined = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    say(f"  {clipped(joined)}")
    final = ended(pollux, running)
    check(joined == text_of(final), "the joined text is the final output", final)


def show_kill(pollux: Server, simulator: Server) -> None:
    title("3  kill -9 in the middle of a run, and a new start on the same store")
    question = "Can you outlive a process"
    running = begun(pollux, request_for(CACHED, question, words=40, delay_ms=50))
    pollux.end(signal.SIGKILL)
    say("  pollux is killed")
    pollux.start("/readyz")
    found, _ = pollux.call("GET", path_of(running))
    check(found["status"] == "in_progress", "the new process knows the response", found)
    say(f"  the lease of the dead process runs out {LEASE_S} s after its last sign of life")
    final = ended(pollux, found)
    text = text_of(final)
    say(f"  {clipped(text)}")
    check(final["status"] == "completed", "the run is completed", final)
    whole = text.startswith(f"You said: {question}") and len(text.split()) == 40
    check(whole, "the output is the answer to its input, and whole: 40 words", text)
    seen = simulator.call(*TRAFFIC)[0]["requests"]
    check(seen.count(seen[-1]) == 2, "for that the simulator was asked twice, with the same request", seen)


def show_cancel(pollux: Server, simulator: Server) -> None:
    title("4  A cancel: final for the client, and felt by the provider")
    running = begun(pollux, request_for(CACHED, "Never stop", words=5000, delay_ms=20))
    before = simulator.call(*TRAFFIC)[0]
    check(before["open"] == 1, "the simulator is answering", before)
    cancelled, _ = pollux.call("POST", f"{path_of(running)}/cancel")
    asked = time.monotonic()
    check(cancelled["status"] == "cancelled", "the cancel call is answered: cancelled", cancelled)
    while (after := simulator.call(*TRAFFIC)[0])["open"] and time.monotonic() < asked + 10:
        time.sleep(0.01)
    closed = not after["open"] and after["aborted"] == before["aborted"] + 1
    check(closed, f"the simulator saw its connection close {time.monotonic() - asked:.2f} s later", after)
    again, _ = pollux.call("POST", f"{path_of(running)}/cancel")
    later, _ = pollux.call("GET", f"{path_of(running)}?wait=10")
    check((again["status"], later["status"]) == ("cancelled",) * 2, "it stays cancelled", (again, later))
    check(text_of(later).startswith(text_of(running)), "what had arrived is kept", later)


def show_native(pollux: Server, simulator: Server) -> None:
    title("5  A native run: in the provider's own background, under a composite id")
    created, _ = pollux.call(
        "POST", RESPONSES, request_for(NATIVE, "Research the unicorn", words=30, first_delay_ms=500, delay_ms=20)
    )
    say(f"  {created['id']}")
    check(created["status"] == "queued", "the create call is answered by the provider: queued", created)
    decoded = base64.b64decode(created["id"].removeprefix("resp_"), validate=True).decode()
    parts = dict(part.split(":", 1) for part in decoded.removeprefix("litellm:").split(";"))
    for name, value in parts.items():
        say(f"  {name:<20} {value}")
    named = list(parts) == ["custom_llm_provider", "model_id", "response_id", "owner"]
    check(named, "in base64 its id says where it lives, and whose it is", decoded)
    final = ended(pollux, created)
    say(f"  {clipped(text_of(final))}")
    completed = final["status"] == "completed" and final["id"] == created["id"]
    check(completed, "a GET that waits returns when it is completed, under the same id", final)
    own, _ = simulator.call("GET", f"{RESPONSES}/{parts['response_id']}")
    check(own["output"] == final["output"], "the simulator has it under that response_id", own)


def show_translated(pollux: Server, simulator: Server) -> None:
    title("6  Another dialect: Claude, asked by Anthropic's Messages, answers as a response")
    created, _ = pollux.call("POST", RESPONSES, request_for(CLAUDE, "Who are you", words=12))
    first = ended(pollux, created)
    say(f"  {clipped(text_of(first))}")
    check(first["status"] == "completed" and first["usage"], "it is completed, with its usage", first)
    request = {**request_for(CLAUDE, "And before that", words=12), "previous_response_id": first["id"]}
    second = ended(pollux, pollux.call("POST", RESPONSES, request)[0])
    check(second["previous_response_id"] == first["id"], "it is continued by its id", second)
    asked = simulator.call(*TRAFFIC)[0]["requests"][-1]
    said = [message["role"] for message in asked["body"]["messages"]]
    for message in asked["body"]["messages"]:
        say(f"  {asked['path']}  {message['role']:<10} {clipped(json.dumps(message['content']))}")
    told = asked["path"] == "/v1/messages" and said == ["user", "assistant", "user"]
    check(told, "for that the provider, which keeps nothing, was told what was said before", asked)


# The two commands.


def demonstrate(pollux: Server, simulator: Server) -> None:
    show_partial_output(pollux)
    show_resumed_stream(pollux)
    show_kill(pollux, simulator)
    show_cancel(pollux, simulator)
    show_native(pollux, simulator)
    show_translated(pollux, simulator)
    title(painted(f"All of it held, in {time.monotonic() - STARTED:.1f} s.", GREEN))


def usable_port(wanted: int) -> int:
    """The wanted port, or any free one for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise Failed(f"port {wanted} is taken; choose others with --port and --simulator-port") from error
        return int(probe.getsockname()[1])


def on_signal(number: int, _: object) -> None:
    """Whatever ends the demo, ends it in order."""
    if number == signal.SIGALRM:
        raise Failed(f"it is not through after {WHOLE_DEMO_S} s")
    raise KeyboardInterrupt


def main() -> int:
    """The exit code is 0 if all held, 1 if not, 2 for wrong usage, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description="Show what Pollux does, end to end.")
    parser.add_argument("--port", type=int, default=0, help="of Pollux (default: a free one)")
    parser.add_argument("--simulator-port", type=int, default=0, help="likewise")
    options = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # A terminal without a ✓ is no reason to fail.
    for number in SIGNALS:
        signal.signal(number, on_signal)
    try:
        ports = usable_port(options.port), usable_port(options.simulator_port)
    except Failed as error:
        parser.error(str(error))
    folder = Path(tempfile.mkdtemp(prefix="pollux-demo-"))
    try:
        with running_pair(folder, *ports) as (pollux, simulator):
            signal.alarm(WHOLE_DEMO_S)
            demonstrate(pollux, simulator)
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        return 130
    except (Failed, HTTPException, OSError, LookupError, ValueError) as error:  # The last two: not what was promised.
        why = error if isinstance(error, Failed) else repr(error)
        for log in sorted(folder.glob("*.log")):
            print(f"\nThe end of {log}:", *log.read_text(errors="replace").splitlines()[-12:], sep="\n  ")
        print(painted(f"\nThe demo failed: {why}", RED), f"Config, store and logs are in {folder}", sep="\n")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
