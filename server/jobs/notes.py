"""What a worker notes of the tries of one attempt that have failed, so that whoever asks for the job can see why."""

from __future__ import annotations

import time
from typing import Any

from server.errors import PolluxError, shown
from server.jobs.journal import Journal
from server.protocol import jsontext
from server.protocol.reasons import without_secrets
from server.protocol.redaction import Secrets
from server.upstream.deployments import Deployment

MOST = 32
"""How many are kept, the last ones. There are rarely more than `num_retries` for each model."""


class Notes:
    """The notes of one attempt. They are stored with the record at once, because a pause may follow."""

    def __init__(self, journal: Journal, secrets: Secrets) -> None:
        self._journal = journal
        self._secrets = secrets
        self._tries: list[dict[str, Any]] = []

    def failed(self, deployment: Deployment | None, model: str, error: PolluxError) -> None:
        """Note a failed try. `deployment` is None if none could be asked."""
        told = {
            "at": round(time.time(), 3),
            "model": model,
            "deployment": deployment.id if deployment else None,
            "code": error.code,
            "reason": shown(without_secrets(self._secrets.hidden_in_text(error.message))),
        }
        self._tries = [*self._tries, told][-MOST:]
        self._journal.set(**{f"tries:{self._journal.lease.attempt}": jsontext.dumps(self._tries)})
