"""A simulated OpenAI: the Responses API over real HTTP, without an account and without a model.

It serves `POST /v1/responses` (JSON, SSE, and a background mode of its own with resume, cancel, delete and
input_items) and `GET /v1/models`, with the order of events, the objects and the errors that OpenAI has on
the wire. Its answer to any input is "You said: <the input>.", word by word, so that everybody can see which
output belongs to which input.

A request steers its own answer, with directives in the text of its last turn, `[[delay_ms=50]] [[words=9]]`,
or with `metadata={"delay_ms": "50"}`; where both name the same directive, the text wins. In the text an
unknown directive is an error (400); in the metadata other keys are left alone, because they are the user's.

| directive | effect |
|---|---|
| `words=N` | the answer has N words (1 to 50,000), never fewer than it takes to repeat the input |
| `delay_ms=N` | time between two events; 0 unless told, fractions allowed |
| `rate=N` | the same, as events per second |
| `duration_s=N` | words for N seconds at `rate` (20 unless told); not with `words` or `delay_ms` |
| `first_delay_ms=N` | time before the first event; in background mode, time spent queued |
| `tool=NAME` | the output is a call of the function NAME, its arguments streamed |
| `custom_tool=NAME` | the output is a call of the custom tool NAME, its input streamed |
| `reasoning=1` | a reasoning item comes first, with a streamed summary and streamed reasoning text |
| `annotations=1` | the text carries a URL citation |
| `refusal=1` | the model refuses |
| `incomplete=1` | half of the output, then `response.incomplete` (`max_output_tokens`) |
| `fail=1` | the output breaks off unfinished, then `response.failed` |
| `status=N` | the request is refused with HTTP status N (400 to 599) after `first_delay_ms` |
| `error_code=CODE` | the code of the error that `status`, `fail` or `error_event_after` makes |
| `retry_after=N` | the refusal carries `retry-after: N` |
| `fail_times=N` | what goes wrong goes wrong for the first N requests only; alone it means `status=500` |
| `fail_key=KEY` | what `fail_times` counts by; the text of the turn unless told |
| `cut_after=N` | the connection drops, without its last chunk, once N events are sent |
| `end_after=N` | the stream ends after N events, cleanly, but without a terminal event |
| `error_event_after=N` | after N events an `error` event, then `response.failed` |
| `error_only=1` | the same without `response.failed`; needs `error_event_after` |
| `silence_after=N` | after N events nothing comes for an hour |
| `no_sequence=1` | the events carry no `sequence_number` |

What is to happen after N events does not happen in an answer that has fewer. `cut_after` and `end_after` end
the connection of the create call, not a background response itself: it can be resumed. A create call
without `stream` and without `background` is cut instead of answered; `end_after` means nothing to it.

For tests and demonstrations, `GET /simulator/requests` tells what arrived, how many requests are being
served now and how many clients hung up; `POST /simulator/reset` forgets all of it, the responses too.
"""

from server.simulator.app import create_simulator
from server.simulator.serving import listening_simulator, serve_simulator

__all__ = ["create_simulator", "listening_simulator", "serve_simulator"]
