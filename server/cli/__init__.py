"""The command `pollux`: what serves, and what asks a server that runs. One module a command.

A module is loaded when its command is called, so that `pollux --help` and a look at a list do not load the server.
`trouble` says what exit codes mean.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from typer import TyperException
from typer._click.exceptions import ClickException

from server.cli.commands import pollux
from server.cli.trouble import Code, Trouble


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code. It prints its errors itself, to standard error."""
    try:
        code = pollux().main(args=argv, prog_name="pollux", standalone_mode=False)
    except ClickException as error:
        error.show()
        return error.exit_code
    except TyperException as error:
        sys.stderr.write(f"pollux: {error}\n")
        return Code.USAGE
    except Trouble as trouble:
        if str(trouble):
            sys.stderr.write(f"pollux: {trouble}\n")
        return trouble.code
    return int(code or 0)
