"""Pollux: background mode of OpenAI's Responses API for every client and every model."""

__version__ = "0.1.0"
