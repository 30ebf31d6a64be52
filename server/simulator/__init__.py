"""Simulated providers over real HTTP, without an account and without a model, in all three dialects.

They serve OpenAI's Responses API (`responses/`: JSON, SSE, and a background mode of its own with resume, cancel,
delete and input_items), Chat Completions (`chat/`) and Anthropic's Messages (`messages/`), with the order of
events, the objects and the errors that they have on the wire. The answer to any input is "You said: <the
input>.", word by word, so that everybody can see which output belongs to which input.

What all dialects share lies beside them: what a request said (`turn.py`) and what it is told to do
(`directives.py`), the parts of its answer (`reply.py`), how it goes wrong (`events.py`), when each event is due
(`playback.py`) and how the answer leaves (`answering.py`).

A request steers its own answer, with directives in the text of its last turn, `[[delay_ms=50]] [[words=9]]`,
or with `metadata={"delay_ms": "50"}`; where both name the same directive, the text wins. In the text an
unknown directive is an error (400); in the metadata other keys are left alone, because they are the user's.

The table in `deploy/docs/simulator.md` says what each of them does; `directives.py` reads them.

For tests and demonstrations, `GET /simulator/requests` tells what arrived, how many requests are being
served now and how many clients hung up; `POST /simulator/reset` forgets all of it, the responses too.
"""

from server.simulator.app import create_simulator
from server.simulator.serving import listening_simulator, serve_simulator

__all__ = ["create_simulator", "listening_simulator", "serve_simulator"]
