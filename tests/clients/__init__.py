"""Frameworks that speak the Responses API, as their users call them: `pip install -e '.[dev,clients]'`."""
