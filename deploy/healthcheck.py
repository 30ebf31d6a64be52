"""The image's health check: whether Pollux answers, on the port that it was started with.

It exits 0 if `GET /livez` is answered 200, with TLS or without, else 1. The port is read from the command line of the
container's first process, or of the process whose id is given.
"""

from __future__ import annotations

import argparse
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

ANSWER_WITHIN_S = 4
EVERYWHERE = ("0.0.0.0", "::", "")


def address_in(words: list[str]) -> tuple[str, int]:
    """The host and port in the words of a `pollux serve`; also behind those of an init such as `tini --`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4000)
    # What stands before "serve" is not ours, and a "--" there would end the options.
    found, _ = parser.parse_known_args(words[words.index("serve") + 1 :])
    return ("localhost" if found.host in EVERYWHERE else found.host), found.port


def main() -> int:
    process = sys.argv[1] if len(sys.argv) > 1 else "1"
    words = Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
    host, port = address_in(words)
    # Whose certificate it is does not matter here: nothing secret is sent, and this machine is asked.
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    why = ""
    for connection in (
        HTTPConnection(host, port, timeout=ANSWER_WITHIN_S),
        HTTPSConnection(host, port, timeout=ANSWER_WITHIN_S, context=unchecked),
    ):
        try:
            connection.request("GET", "/livez")
            return int(connection.getresponse().status != 200)
        except (OSError, HTTPException) as error:
            why = str(error)
    print(f"no answer: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
