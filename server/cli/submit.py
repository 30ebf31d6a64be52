"""`pollux submit`: create a response in the background."""

from __future__ import annotations

import base64
import json
import mimetypes
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from http.client import HTTPException, HTTPResponse
from itertools import chain
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from server.cli.asking import AskingCommand, client_for
from server.cli.client import PATIENCE_S, Client, Json, page_of
from server.cli.commands import new_app
from server.cli.interrupts import going_on
from server.cli.live import Growing
from server.cli.output import remark, say, say_json
from server.cli.streams import blocks, response_events, states
from server.cli.trouble import Code, Trouble, code_of

app = new_app()

BY_OPTION = {"stream", "background"}
"""The fields that decide how an answer is to be read."""
CREATED_WITHIN_S = 30.0
"""How long a create call is repeated. Its idempotency key makes all of them one."""


@app.command(cls=AskingCommand)
def submit(
    ctx: typer.Context,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="What is asked; - is standard input.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Which model; not needed where there is but one.")
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", metavar="FILE", help="Add a file: text, an image or a PDF. Repeatable."),
    ] = None,
    instructions: Annotated[str | None, typer.Option(help="Who the model is to be.")] = None,
    effort: Annotated[str | None, typer.Option(help="How hard it is to think: low, medium, high …")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Kept with the response. Repeatable.")
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=JSON", help="Any other field of the request, such as temperature=0.2. Repeatable."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Print the text as it grows, to the end.")] = False,
    stream: Annotated[bool, typer.Option("--stream", "-s", help="The same, each event when it comes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> int:
    """Create a response in the background, and print its id.

    With --wait or --stream the text follows as it grows, and the exit code tells how it ended. Ctrl-C leaves the
    response alone: pollux watch ID goes on with it.
    """
    client = client_for(ctx)
    asked = _input(texts or [], file or [])
    body: Json = {"model": model or client.settings.model or _only_model(client), "input": asked, "background": True}
    body |= _fields(instructions, effort, metadata or [], field or [])
    headers = {"Idempotency-Key": f"pollux-cli-{uuid4()}"}
    if stream:
        return _streamed(client, {**body, "stream": True}, headers, as_json=as_json)
    answer = client.call("POST", "responses", body, headers=headers, patience_s=CREATED_WITHIN_S)
    response = answer.body
    if not wait:
        say_json(response) if as_json else say(response["id"])
        if not as_json and sys.stdout.isatty():
            remark(f"Watch it:  pollux watch {response['id']}\n     or:  {page_of(client, response['id'])}")
        return Code.FINE
    with going_on(response["id"]), Growing(client, response["id"], text=not as_json) as growing:
        for state in states(client, response["id"], answer.etag):
            growing.state(state)
    if as_json:
        say_json(growing.last)
    return code_of(growing.status)


def _fields(instructions: str | None, effort: str | None, metadata: list[str], others: list[str]) -> Json:
    """The fields of the request that options name."""
    found: Json = {"instructions": instructions} if instructions else {}
    if effort:
        found["reasoning"] = {"effort": effort}
    if metadata:
        found["metadata"] = dict(_pair(text) for text in metadata)
    for name, value in map(_pair, others):
        if name in BY_OPTION:
            raise Trouble(f"{name} can't be set by --field: see --stream and --wait", code=Code.USAGE)
        found[name] = _value(value)
    return found


def _streamed(client: Client, body: Json, headers: dict[str, str], *, as_json: bool) -> int:
    """Create a response with `stream`, and follow it, first by the answer of the create call itself."""
    first, opened = _opened(client, body, headers)
    response_id = first["response"]["id"]
    events = response_events(client, response_id, first.get("sequence_number", 0), opened)
    with going_on(response_id), Growing(client, response_id, text=not as_json) as growing:
        for event in chain([first], events):
            growing.event(event)
            if as_json:
                say_json(event)
    return code_of(growing.status)


def _opened(client: Client, body: Json, headers: dict[str, str]) -> tuple[Json, AbstractContextManager[HTTPResponse]]:
    """The first event, and the stream behind it. Repeated until there is one: a break can come before the id."""
    deadline = time.monotonic() + CREATED_WITHIN_S
    while True:
        answer = client.open("POST", "responses", body, headers=headers, patience_s=CREATED_WITHIN_S)
        stream = answer.__enter__()  # it stays open behind the first event
        try:
            return next(event for _, event in blocks(client, stream) if event), nullcontext(stream)
        except (OSError, HTTPException, StopIteration) as error:
            stream.close()
            if time.monotonic() > deadline:
                raise Trouble("the stream broke before its first event", code=Code.UNREACHABLE) from error


def _input(texts: list[str], files: list[Path]) -> Any:
    """The text, or a message of text and files."""
    if not texts and not files and sys.stdin.isatty():
        raise Trouble('say what to ask: pollux submit "…", or pipe it in', code=Code.USAGE)
    if not texts and not files:
        texts = ["-"]
    words = [_read() if text == "-" else _checked(text, "the text") for text in texts]
    parts = [part for file in files for part in [_part(file)]]
    words += [part["text"] for part in parts if part["type"] == "input_text"]
    text = "\n\n".join(word for word in words if word.strip())
    others = [part for part in parts if part["type"] != "input_text"]
    if not text and not others:
        raise Trouble("there is nothing to ask: the input is empty", code=Code.USAGE)
    if not others:
        return text
    return [{"role": "user", "content": [*([{"type": "input_text", "text": text}] if text else []), *others]}]


def _read() -> str:
    try:
        return _checked(sys.stdin.read(), "standard input")
    except UnicodeDecodeError:
        raise Trouble("standard input is no text; a file that is none: --file", code=Code.USAGE) from None


def _checked(text: str, what: str) -> str:
    """Text, without the halves of characters by which Python passes on bytes that are none."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Trouble(f"{what} is no text: its bytes are not {sys.getfilesystemencoding()}", code=Code.USAGE)
    return text


def _part(file: Path) -> Json:
    """A file as a part of a message.

    Raises:
        Trouble

    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise Trouble(f"{file} can't be read: {error.strerror}", code=Code.USAGE) from None
    kind = mimetypes.guess_type(file.name)[0] or ""
    data = f"data:{kind};base64,{base64.b64encode(raw).decode()}"
    if kind.startswith("image/") and kind != "image/svg+xml":
        return {"type": "input_image", "image_url": data}
    if kind == "application/pdf":
        return {"type": "input_file", "filename": file.name, "file_data": data}
    try:
        return {"type": "input_text", "text": raw.decode()}
    except UnicodeDecodeError:
        raise Trouble(f"{file} is neither text nor an image nor a PDF", code=Code.USAGE) from None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise Trouble(f"{text!r} is no NAME=VALUE", code=Code.USAGE)
    return name, value


def _value(text: str) -> Any:
    """JSON, or a plain text that does not look like JSON that went wrong."""
    try:
        return json.loads(text)
    except ValueError:
        if text[:1] in ("{", "[", '"'):
            raise Trouble(f"{text!r} is no JSON", code=Code.USAGE) from None
        return text


def _only_model(client: Client) -> str:
    names: list[str] = [model["id"] for model in client.get("models", patience_s=PATIENCE_S)["data"]]
    plain = [name for name in names if "*" not in name]
    if len(names) != 1 or not plain:
        there = ", ".join(names[:20]) or "none"
        raise Trouble("say which model: -m MODEL, or POLLUX_MODEL", f"There are: {there}", code=Code.USAGE)
    return plain[0]
