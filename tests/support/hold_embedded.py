"""A process of its own that shares the embedded server of a directory: `python hold_embedded.py DIRECTORY`.

It talks in lines. It prints `loaded`; a line on its standard input lets it in; it prints `ready`, and
`SIGINT` whenever it gets one; the end of its standard input makes it leave, after which it prints `left`.
"""

import asyncio
import signal
import sys
from pathlib import Path

from storage.embedded import embedded_server


async def hold(directory: Path) -> None:
    # A handler, and not SIG_IGN, which the server would inherit.
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, say, "SIGINT")
    say("loaded")
    await asyncio.to_thread(sys.stdin.readline)
    async with embedded_server(directory):
        say("ready")
        await asyncio.to_thread(sys.stdin.read)
    say("left")


def say(word: str) -> None:
    print(word, flush=True)


if __name__ == "__main__":
    asyncio.run(hold(Path(sys.argv[1])))
