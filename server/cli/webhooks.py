"""`pollux webhooks`: the endpoints of a key that are told of the ends of its responses."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from server.cli.asking import AskingCommand, client_for
from server.cli.commands import new_app
from server.cli.output import remark, say, say_json
from server.cli.terminal import print_table
from server.cli.trouble import Code
from server.cli.words import age, moment

app = new_app(no_args_is_help=True)
PATH = "webhook_endpoints"

Endpoint = Annotated[str, typer.Argument(metavar="ID", help="The endpoint, we_….")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")]


@app.callback()
def webhooks() -> None:
    """Manage the endpoints that are told of the ends of your responses."""


@app.command(name="list", cls=AskingCommand)
def list_endpoints(ctx: typer.Context, as_json: AsJson = False) -> int:
    """List endpoints, and whether they take what they are sent."""
    found = client_for(ctx).get(PATH, {"limit": 100})["data"]
    if as_json:
        for one in found:
            say_json(one)
    elif not found:
        remark("There are none.  pollux webhooks create URL")
    else:
        print_table(
            ("ID", "STATUS", "NAME", "URL", "EVENTS", "LAST FAILURE"),
            (
                [one["id"], one["status"], one["name"], one["url"], _kinds(one), str(one["last_failure"] or "")]
                for one in found
            ),
        )
    return Code.FINE


def _path(endpoint: str, *what: str) -> str:
    return "/".join((PATH, quote(endpoint, safe=""), *what))


def _kinds(endpoint: dict[str, Any]) -> str:
    return ",".join(kind.removeprefix("response.") for kind in endpoint["event_types"])


@app.command(cls=AskingCommand)
def create(
    ctx: typer.Context,
    address: Annotated[str, typer.Argument(metavar="URL", help="Where it listens.")],
    event: Annotated[
        list[str] | None,
        typer.Option("--event", "-e", help="Such as response.completed; all unless given. Repeatable."),
    ] = None,
    name: Annotated[str, typer.Option(help="What it is called.")] = "pollux webhooks create",
    as_json: AsJson = False,
) -> int:
    """Create an endpoint, and print its id and its signing secret, which is never shown again."""
    client = client_for(ctx)
    kinds = event or client.get("webhook_event_types")["data"]
    # Not repeated where the outcome is not known: it would make a second endpoint.
    made = client.call("POST", PATH, {"name": name, "url": address, "event_types": kinds}, patience_s=0).body
    say_json(made) if as_json else say(f"{made['id']} {made['signing_secret']}")
    return Code.FINE


@app.command(cls=AskingCommand)
def delete(ctx: typer.Context, endpoint: Endpoint, as_json: AsJson = False) -> int:
    """Delete an endpoint. It is told of nothing any more."""
    gone = client_for(ctx).call("DELETE", _path(endpoint)).body
    say_json(gone) if as_json else say(f"{endpoint} deleted")
    return Code.FINE


@app.command(cls=AskingCommand)
def rotate(
    ctx: typer.Context,
    endpoint: Endpoint,
    keep_old: Annotated[bool, typer.Option("--keep-old", help="Sign with the old secret too, for 24 hours.")] = False,
    as_json: AsJson = False,
) -> int:
    """Give an endpoint a new signing secret, and print it."""
    body = {"keep_old_secret_active_for_24_hours": keep_old}
    made = client_for(ctx).call("POST", _path(endpoint, "rotate_secret"), body, patience_s=0).body
    say_json(made) if as_json else say(f"{endpoint} {made['signing_secret']}")
    return Code.FINE


@app.command(name="test", cls=AskingCommand)
def send_test(
    ctx: typer.Context,
    endpoint: Endpoint,
    event: Annotated[str, typer.Option("--event", "-e", help="Of which type.")] = "response.completed",
    as_json: AsJson = False,
) -> int:
    """Send an endpoint a sample, now and once. The exit code is 1 unless it answers 2xx."""
    found = client_for(ctx).call("POST", _path(endpoint, "test"), {"event_type": event}, patience_s=0).body
    say_json(found) if as_json else say(f"{endpoint} answered {found['status_code']}")
    return Code.FINE if 200 <= found["status_code"] < 300 else Code.FAILED


@app.command(cls=AskingCommand)
def deliveries(ctx: typer.Context, endpoint: Endpoint, as_json: AsJson = False) -> int:
    """List the last deliveries to an endpoint, newest first."""
    found = client_for(ctx).get(_path(endpoint, "deliveries"))["data"]
    if as_json:
        for one in found:
            say_json(one)
    elif not found:
        remark("There are none.")
    else:
        print_table(
            ("EVENT", "TYPE", "STATUS", "TRIES", "LAST TRY", "CODE", "MS", "ERROR"),
            (
                [
                    *(one["event_id"], one["event_type"], one["status"], str(one["attempts"])),
                    f"{age(one['last_attempt_at'])} ago" if one["last_attempt_at"] else moment(None),
                    *(str(one[name] or "") for name in ("status_code", "latency_ms", "error")),
                ]
                for one in found
            ),
            ("TRIES", "MS"),
        )
    return Code.FINE


@app.command(cls=AskingCommand)
def redeliver(
    ctx: typer.Context,
    endpoint: Endpoint,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="evt_….")],
    as_json: AsJson = False,
) -> int:
    """Send an endpoint one of its last events once more."""
    found = client_for(ctx).call("POST", _path(endpoint, "redeliver"), {"event_id": event}).body
    say_json(found) if as_json else say(f"{event} will be sent again")
    return Code.FINE
