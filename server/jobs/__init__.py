"""Jobs: submitting a background response, working it under a lease, writing its log, and viewing it."""
