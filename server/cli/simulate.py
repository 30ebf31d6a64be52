"""`pollux simulate`: a provider to try things with."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
import uvloop

from server.cli.commands import new_app
from server.cli.failing import told
from server.cli.served import HIGHEST_PORT
from server.cli.trouble import Code
from server.logs import configure_logs
from server.simulator import serve_simulator

app = new_app()


@app.command()
def simulate(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=HIGHEST_PORT, help="The port to listen on.")] = 4010,
    api_key: Annotated[str | None, typer.Option(help="Refuse other keys than this one.")] = None,
) -> int:
    """Simulate a provider: OpenAI's Responses API, Chat Completions and Anthropic's Messages, for any model."""
    configure_logs("console")
    with told(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_simulator(host, port, api_key))
    return Code.FINE
