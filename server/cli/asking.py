"""The options of all commands that ask a server, and the client that they lead to."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from server.cli.client import Client
from server.cli.settings import settings_for

_GIVEN = "pollux."
PANEL = "Which server"


def _keep(ctx: typer.Context, param: typer.CallbackParam, value: str | None) -> str | None:
    ctx.meta[_GIVEN + str(param.name)] = value
    return value


def _options(
    url: Annotated[
        str | None,
        typer.Option(envvar="POLLUX_URL", callback=_keep, rich_help_panel=PANEL, help="The server's address."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            envvar="POLLUX_API_KEY",
            callback=_keep,
            rich_help_panel=PANEL,
            show_envvar=True,
            help="Its API key; others on this machine may see an option, but not the environment.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            envvar="POLLUX_PROFILE",
            callback=_keep,
            rich_help_panel=PANEL,
            help="One of profiles in ~/.config/pollux/config.toml.",
        ),
    ] = None,
) -> None:
    """Hold the options that `AskingCommand` adds to others; never called."""


class AskingCommand(TyperCommand):
    """A command that asks a server: it has the options that say which."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        app = typer.Typer(add_completion=False)
        app.command()(_options)
        for option in get_command(app).params:
            option.expose_value = False
            self.params.append(option)


def client_for(ctx: typer.Context) -> Client:
    """The client for what the options and the environment say.

    Raises:
        Trouble

    """
    return Client(settings_for(*(ctx.meta.get(_GIVEN + name) for name in ("url", "key", "profile"))))
