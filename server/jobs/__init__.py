"""Jobs: what workers do. A job is worked under a lease, and what comes of it is written to its log."""
