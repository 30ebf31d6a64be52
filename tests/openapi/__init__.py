"""Whether Pollux does what /openapi.json says, as schemathesis finds out: `.ci/schemathesis`.

`__main__` starts a server with something in it, and lets schemathesis loose on it. `schemathesis.toml` tells which of
its checks do not hold here, and why; `hooks` is what of that takes code, and runs in schemathesis' own environment.
"""
