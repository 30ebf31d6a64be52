"""The pictures of the README that commands make: `python -m tests.pictures` makes them anew."""
