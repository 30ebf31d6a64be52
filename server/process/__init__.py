"""One process and its parent: what runs in it, how it starts, serves and leaves, and who starts it anew."""
