"""The protocol, pure: no I/O, no clock, no randomness. What goes in decides what comes out."""
