"""The HTTP interface: handlers that read a request, call the packages below, and answer as OpenAI's API does."""
