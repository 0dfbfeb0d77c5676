"""A model server on loopback that speaks OpenAI's chat completions, as far as DSPy needs it.

It answers every wanted field with the same text, or with a text by field name, reports a usage, and
remembers what it was asked. It can be told to fail first.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["COMPLETION_TOKENS", "PROMPT_TOKENS", "LoopbackOpenAI"]

PROMPT_TOKENS, COMPLETION_TOKENS = 40, 2

_WANTED = re.compile(r"`(?:\[\[ ## )?(\w+)(?: ## \]\])?`")


class LoopbackOpenAI:
    """The server, and what it has seen."""

    def __init__(self, answers: Mapping[str, str], default: str) -> None:
        self.answers = dict(answers)
        self.default = default
        self.failures: list[int] = []
        """The statuses of the next answers, in order; when it is empty, requests succeed."""
        self.always: int | None = None
        """The status of every answer, if it is not None."""
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []
        self.port = 0
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def open(cls, answers: Mapping[str, str] | None = None, default: str = "green") -> Iterator[LoopbackOpenAI]:
        """Serve until the end of the block. All its threads and sockets end with it."""
        served = cls(answers or {}, default)

        class Handler(_Handler):
            loopback = served

        class Server(ThreadingHTTPServer):
            daemon_threads = False  # server_close() waits for the threads of its requests

        with Server(("127.0.0.1", 0), Handler) as server:
            served.port = server.server_address[1]
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="loopback")
            thread.start()
            try:
                yield served
            finally:
                server.shutdown()
                thread.join()

    @property
    def api_base(self) -> str:
        """The base address, as `lm_options` takes it."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def prompts(self) -> list[str]:
        """Everything each request told the model, as one text."""
        return [json.dumps(request["messages"]) for request in self.requests]

    def answer(self, path: str, authorization: str | None, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The status and the body of the answer to a request, which is remembered."""
        with self._lock:
            self.paths.append(path)
            self.authorizations.append(authorization)
            self.requests.append(body)
            status = self.always or (self.failures.pop(0) if self.failures else 200)
            number = len(self.requests)
        if status != 200:
            return status, {"error": {"message": "out of order", "type": "server_error"}}
        _, _, wanted = _text_of(body["messages"][-1]["content"]).rpartition("Respond with ")
        names = dict.fromkeys(name for name in _WANTED.findall(wanted) if name != "completed")
        text = "".join(f"[[ ## {name} ## ]]\n{self.answers.get(name, self.default)}\n\n" for name in names)
        message = {"role": "assistant", "content": text + "[[ ## completed ## ]]"}
        return 200, {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": PROMPT_TOKENS,
                "completion_tokens": COMPLETION_TOKENS,
                "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
            },
        }


class _Handler(BaseHTTPRequestHandler):
    """One request per connection (HTTP/1.0), so that none stays open."""

    loopback: LoopbackOpenAI
    timeout = 10

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        status, answer = self.loopback.answer(self.path, self.headers.get("Authorization"), body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing goes to stderr."""


def _text_of(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content)
