"""The process boundary: what crosses it, how workers are started and ended, what runs in them.

Two halves meet here and share only the descriptions of what crosses: `frames` and `messages`, the
evidence `page`, the `adapters`' declaration of commands, and how exceptions travel (`remote`).

* In the worker: `child` is the loop, `functions` finds what it calls, `lifeline` ties its life to
  the application's. This half imports the standard library and msgspec, nothing else.
* In the application: `seam` says what the runtime wants of a worker; `spawn` is the implementation
  with processes of this machine, `last_words` keeps what they write to stderr, `journal` what they
  have to be told again.
"""
