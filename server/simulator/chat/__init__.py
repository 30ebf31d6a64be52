"""Chat Completions, as OpenAI and the many who imitate it serve them. Nothing is kept."""
