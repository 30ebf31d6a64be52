"""The program. It hears signals before it imports the rest, which takes about a second."""

import signal
import sys

SERVES = sys.argv[1:2] in (["serve"], ["dev"])
if SERVES:
    from server.system import signals

    signals.end_at_once()
elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to tidy up yet, and no trace to print

from server.cli import main  # noqa: E402
from server.cli.interrupts import end_tidily  # noqa: E402

if not SERVES:
    end_tidily()

if __name__ == "__main__":
    sys.exit(main())
