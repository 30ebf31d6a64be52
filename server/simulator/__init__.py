"""A simulated OpenAI: the Responses API over real HTTP, without an account and without a model.

It serves `POST /v1/responses` (JSON, SSE, and a background mode of its own with resume, cancel, delete and
input_items) and `GET /v1/models`, with the order of events, the objects and the errors that OpenAI has on
the wire. Its answer to any input is "You said: <the input>.", word by word, so that everybody can see which
output belongs to which input.

A request steers its own answer, with directives in the text of its last turn, `[[delay_ms=50]] [[words=9]]`,
or with `metadata={"delay_ms": "50"}`; where both name the same directive, the text wins. In the text an
unknown directive is an error (400); in the metadata other keys are left alone, because they are the user's.

The README's table "The simulator" says what each of them does; `directives.py` reads them.

For tests and demonstrations, `GET /simulator/requests` tells what arrived, how many requests are being
served now and how many clients hung up; `POST /simulator/reset` forgets all of it, the responses too.
"""

from server.simulator.app import create_simulator
from server.simulator.serving import listening_simulator, serve_simulator

__all__ = ["create_simulator", "listening_simulator", "serve_simulator"]
