"""The HTTP face: thin shells that read a request, ask the floors below, and answer in the contract's shape."""
