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
from server.cli.output import abandon_output, open_streams, remark
from server.cli.trouble import Code, Trouble


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code. It prints its errors itself, to standard error."""
    open_streams()
    try:
        code = pollux().main(args=argv, prog_name="pollux", standalone_mode=False)
        sys.stdout.flush()
    except ClickException as error:
        error.show()
        return error.exit_code
    except TyperException as error:
        remark(f"pollux: {error}")
        return Code.USAGE
    except Trouble as trouble:
        if trouble.code is Code.CLOSED:
            abandon_output()
        if str(trouble):
            remark(f"pollux: {trouble}")
        return trouble.code
    except OSError as error:
        abandon_output()
        remark(f"pollux: the output can't be written: {error.strerror or error}")
        return Code.FAILED
    return int(code or 0)
