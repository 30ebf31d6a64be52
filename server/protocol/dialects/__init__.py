"""Dialects: requests of the Responses API in the words of other APIs, and their answers as Responses events. Pure.

`request` translates what is asked, `reply` what is answered. The translation itself is a library's (`library`). Before
it, readers (`chat_reader`, `messages_reader`) turn what providers really send into what the library takes; behind it,
`mending` adds what the library leaves out.
"""
