"""The program. It hears signals before it imports the rest, which takes about a second."""

import sys

from server import signals

if sys.argv[1:2] == ["serve"]:
    signals.end_at_once()

from server.cli import main

if __name__ == "__main__":
    sys.exit(main())
