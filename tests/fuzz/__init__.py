"""Fuzzing: what Pollux reads from strangers, fed with bytes that nobody thought of.

Each module of `targets` has one function `fuzz(data)`, which makes an input of the bytes, gives it to the code, and
asserts what must hold for every input. The same functions are driven in three ways:

- `test_targets` runs each a few hundred times in the suite, with bytes that hypothesis draws, and on all that was found
  before (`found`);
- `python -m tests.fuzz`, or `make fuzz`, runs them for as long as you like, guided by coverage: atheris mutates the
  bytes that led to new branches of the code.

What is found becomes a test of the module that was mended, and a line of `found`.
"""
