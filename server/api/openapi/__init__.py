"""The description of the API in OpenAPI 3.1, made from the tables that serve it.

It is loaded when it is first asked for, and then made once.
"""
