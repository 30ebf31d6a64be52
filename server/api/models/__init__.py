"""Models of what goes in and out, as pydantic has them.

`bodies` are those by which handlers read requests. The others describe what is made elsewhere: a create call is read by
`protocol.requests`, because its path is hot, and answers are made where they are answered. Tests hold them together:
what one refuses the other does too, and every real answer fits its model.

`named` has all of them. Only `bodies` is loaded when a process starts.
"""
