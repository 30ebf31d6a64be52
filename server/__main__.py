"""The program. It hears signals before it imports the rest, which takes about a second."""

import sys

if sys.argv[1:2] in (["serve"], ["dev"]):
    from server.system import signals

    signals.end_at_once()

from server.cli import main

if __name__ == "__main__":
    sys.exit(main())
