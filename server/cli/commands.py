"""The table of all commands. The module of a command is loaded when it is called."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from server import __version__
from server.cli.trouble import Code, Trouble


class Listed(NamedTuple):
    """A command as `pollux --help` shows it."""

    name: str
    panel: str
    told: str

    @property
    def module(self) -> str:
        """Where it is: a module with a `typer.Typer` that is called `app`."""
        return f"{__package__}.{self.name.replace('-', '_')}"


RESPONSES, SERVICE, SERVING = "Responses", "The service", "Serving"

TABLE = (
    Listed("submit", RESPONSES, "Create a response in the background; --wait for it, or --stream it."),
    Listed("wait", RESPONSES, "Wait until responses have ended."),
    Listed("watch", RESPONSES, "Watch a response grow, or several, or all."),
    Listed("list", RESPONSES, "List responses, newest first."),
    Listed("show", RESPONSES, "Show one response: its life, its text, its usage."),
    Listed("cancel", RESPONSES, "Cancel responses."),
    Listed("delete", RESPONSES, "Delete responses; a running one is cancelled first."),
    Listed("events", SERVICE, "Follow the changes of status of all responses."),
    Listed("top", SERVICE, "Watch the service: what runs, and how deployments do."),
    Listed("usage", SERVICE, "Report requests, tokens and cost."),
    Listed("webhooks", SERVICE, "Manage the endpoints that are told of ends."),
    Listed("doctor", SERVICE, "Check a config and its store, or a running server."),
    Listed("dev", SERVING, "Serve simulated models on this machine, to try things."),
    Listed("serve", SERVING, "Serve the Responses API."),
    Listed("reload", SERVING, "Have running servers read their config file again."),
    Listed("check-config", SERVING, "Print what a config file means, and check it."),
    Listed("simulate", SERVING, "Simulate a provider, no account needed."),
)

EXAMPLES = {
    "submit": (
        'pollux submit -m gpt-5.2 "Tell me a story." --stream',
        'git diff | pollux submit -m gpt-5.2 "Review this." - --wait',
        'ID=$(pollux submit -m gpt-5.2 "Sum it up." --file report.pdf --metadata order=17)',
    ),
    "wait": (
        'pollux wait "$ID" && echo fine',
        "pollux list --quiet --status in_progress | pollux wait - --timeout 600",
    ),
    "watch": (
        "pollux watch",
        'pollux watch "$ID"',
        'pollux watch "$ID" --json | jq -r .type',
    ),
    "list": (
        "pollux list --status failed --limit 50",
        "pollux list --all --json | jq -r .model | sort | uniq -c",
    ),
    "show": (
        'pollux show "$ID"',
        'pollux show "$ID" --json | jq .usage',
    ),
    "cancel": (
        'pollux cancel "$ID"',
        "pollux list --quiet --all --status queued | pollux cancel -",
    ),
    "delete": (
        'pollux delete "$ID"',
        "pollux list --quiet --all --status failed | pollux delete -",
    ),
    "events": (
        "pollux events --types response.failed --types response.incomplete",
        "pollux events --json | jq -r .data.id",
    ),
    "top": (
        "pollux top",
        "pollux top --once --json | jq .tallies.queued",
    ),
    "usage": ("pollux usage --from 2026-11-01 --by day --by model",),
    "webhooks": (
        "pollux webhooks create https://me.example/hook --event response.completed",
        "pollux webhooks list",
        "pollux webhooks deliveries we_…",
    ),
    "doctor": (
        "pollux doctor",
        "pollux doctor config.yaml --upstreams",
    ),
    "dev": (
        "pollux dev --open",
        'pollux submit -m gpt-5.2 "Hello" --stream',
    ),
    "serve": ("pollux serve --config config.yaml --host 0.0.0.0 --workers 4",),
    "reload": ("pollux reload",),
    "check-config": ("pollux check-config config.yaml --strict",),
    "simulate": ("pollux simulate --port 4010",),
}
"""What the help of each command shows of its use."""

_BY_NAME = {listed.name: listed for listed in TABLE}


class Commands(TyperGroup):
    """All commands. For its help and for completion it knows names and sentences only."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        for name, panel, told in TABLE:
            self.add_command(TyperCommand(name, help=told, rich_help_panel=panel))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise Trouble("", code=Code.CLOSED) from None  # typer would say 1, which is for failures

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, known, rest = super().resolve_command(ctx, args)
        return name, known and loaded(name or ""), rest


def loaded(name: str) -> TyperCommand | TyperGroup:
    """A command with all that it needs."""
    listed = _BY_NAME[name]
    command: Any = get_command(import_module(listed.module).app)
    command.name = name
    command.epilog = "\n".join(("Examples:", *(f"  {example}" for example in EXAMPLES[name])))
    _tidy(command)
    return command  # type: ignore[no-any-return]


def _tidy(command: Any, inside: Any = None) -> None:
    """Let paragraphs of help flow, and name values for what they are: that `--json` is a <bool> helps nobody."""
    command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help or "")
    context = command.context_class(command, parent=inside, **command.context_settings)
    for param in command.get_params(context):
        if param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None  # noqa: ARG005
        elif getattr(param, "is_flag", False):
            param.metavar = ""
        elif param.metavar is None and param.type_descriptor.annotation in (str, list[str]):
            param.metavar = param.name.upper()
        elif param.metavar is None and param.type_descriptor.annotation is int:
            param.metavar = "NUMBER"
    for inner in getattr(command, "commands", {}).values():
        _tidy(inner, context)


def pollux() -> Commands:
    """The command `pollux`."""
    app = typer.Typer(
        cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, context_settings=HELP, epilog=EPILOG
    )
    app.callback()(_options)
    made: Any = get_command(app)
    _tidy(made)
    return made  # type: ignore[no-any-return]


HELP = {"help_option_names": ["-h", "--help"]}
EPILOG = "POLLUX_URL and POLLUX_API_KEY say which server is asked, or ~/.config/pollux/config.toml. NO_COLOR is heeded."


def _print_version(wanted: bool) -> None:  # so typer calls it
    if wanted:
        sys.stdout.write(f"pollux {__version__}\n")
        raise typer.Exit


def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    """Background mode of OpenAI's Responses API, for every client and every model."""


def new_app(**given: Any) -> typer.Typer:
    """For one command and its options."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=HELP, **given)
