"""The outbox: what must be told to somebody outside, durably, by whichever process gets to it."""
