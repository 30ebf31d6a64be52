"""The way to the providers: which deployments there are, and talking to one of them over HTTP."""
