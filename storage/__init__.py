"""The store: what survives a process."""
