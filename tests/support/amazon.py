"""Amazon's side, written anew from its documents: the check of a signature, and the framing of event streams."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct
import zlib
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlsplit

from tests.support.upstreams import SeenRequest

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, "
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)


def is_signed(request: SeenRequest, access_key_id: str, secret: str, region: str) -> bool:
    """Whether a request is signed with these keys for Bedrock in this region (Signature Version 4)."""
    found = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
    if found is None or (found["key"], found["region"], found["service"]) != (access_key_id, region, "bedrock"):
        return False
    assert {"host", "x-amz-date"} <= set(found["headers"].split(";"))
    parts = urlsplit(request.path_qs)
    canonical = "\n".join(
        [
            request.method,
            quote(parts.path, safe="/~"),
            parts.query,
            *(f"{name}:{request.headers[name].strip()}" for name in found["headers"].split(";")),
            "",
            found["headers"],
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    scope = f"{found['day']}/{region}/bedrock/aws4_request"
    to_sign = "\n".join(
        ["AWS4-HMAC-SHA256", request.headers["X-Amz-Date"], scope, hashlib.sha256(canonical.encode()).hexdigest()]
    )
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, to_sign.encode(), "sha256").hexdigest() == found["signature"]


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of an event stream."""
    told = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    return framed(told, payload)


def framed(headers: bytes, payload: bytes) -> bytes:
    """A message whose lengths and checksums are right, whatever its headers are."""
    prelude = struct.pack("!II", 12 + len(headers) + len(payload) + 4, len(headers))
    made = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    return made + struct.pack("!I", zlib.crc32(made))


def chunks(events: Iterable[dict[str, Any]]) -> bytes:
    """Events of a model, as InvokeModelWithResponseStream frames them."""
    headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    return b"".join(
        message(
            headers, json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode(), "p": "ab"}).encode()
        )
        for event in events
    )


def exception(kind: str, text: str) -> bytes:
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, json.dumps({"message": text}).encode())
