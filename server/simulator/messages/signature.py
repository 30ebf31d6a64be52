"""The signature of a thinking block: a client must give the block back as it was, or is refused."""

import base64
import hashlib


def sign(thinking: str) -> str:
    digest = hashlib.sha512(b"simulated thinking: " + thinking.encode()).digest()
    return base64.b64encode(digest).decode()
