"""The causes for which a request has fallbacks of its own: LiteLLM's two, told by its words (1.110:
`exception_mapping_utils.py`), and all others.
"""

from __future__ import annotations

import re
from enum import Enum

from server.protocol.reasons import Fields


class Cause(Enum):
    """Why a model gave no answer."""

    WINDOW = "window"
    """The request is too long for the model."""
    POLICY = "policy"
    """The provider's rules forbid the request, or what the model made of it."""
    OTHER = "other"


_WINDOW = re.compile(
    r"context_(length|window)_exceeded|exceed context limit|model'?s maximum context (length is|limit)"
    r"|requested token count exceeds the model's maximum context length|is longer than the model's context length"
    r"|string too long\. expected a string with maximum length|input tokens exceed the configured limit"
    r"|`inputs` tokens \+ `max_new_tokens` must be|exceeds the available context size|prompt is too long"
    r"|exceeds the maximum number of tokens allowed|current length is.*while limit is"
    r"|maximum input length is.*tokens|tokens.*maximum input length is|input too long:.*input tokens, limit is",
    re.IGNORECASE | re.DOTALL,
)
_ONE_FIELD = re.compile(r"string_above_max_length|invalid 'user'.*string too long", re.IGNORECASE | re.DOTALL)
"""A field of the request is too long, such as `user`; another model would say the same."""
_POLICY = re.compile(
    r"content_policy_violation|responsibleaipolicyviolation|\bcontent_filter(_policy)?\b|content filtering policy"
    r"|filtered due to the prompt triggering azure openai's content management|the model produced invalid content"
    r"|as a result of (our|the) safety system|invalid prompt.*violating our usage policy|the response was blocked\.",
    re.IGNORECASE | re.DOTALL,
)


def cause_in(fields: Fields) -> Cause:
    """The cause that the fields of a provider's error tell."""
    text = "\n".join(str(fields.get(name) or "") for name in ("code", "type", "message"))
    if _WINDOW.search(text) and not _ONE_FIELD.search(text):
        return Cause.WINDOW
    return Cause.POLICY if _POLICY.search(text) else Cause.OTHER
