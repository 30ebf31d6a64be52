"""Anthropic's Messages. Nothing is kept."""
