"""Reloading: a config that is read again, how the processes of one server agree on it, and who may ask for it."""
