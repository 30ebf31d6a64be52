"""The Responses API: with a background mode of its own, so its responses are kept for a while."""
