"""A model that takes a fixed time: as much of OpenAI's chat completions as DSPy needs, on loopback.

    python -m remuda.benchmarks.model_server SECONDS

It says its port on stdout, serves any number of requests at once, and ends when its stdin is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys

__all__ = ["ANSWER", "serve"]

ANSWER = "green"

_BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "bench",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": f"[[ ## answer ## ]]\n{ANSWER}\n\n[[ ## completed ## ]]",
                },
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42},
    }
).encode()
_REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    + str(len(_BODY)).encode()
    + b"\r\n\r\n"
    + _BODY
)


async def _answer(seconds: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The requests of one connection, one after the other."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            size = 0
            for line in head.split(b"\r\n"):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
            await reader.readexactly(size)
            await asyncio.sleep(seconds)
            writer.write(_REPLY)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # who asked has gone
    finally:
        writer.close()


async def serve(seconds: float) -> None:
    """Serve until nobody holds our stdin."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _answer(seconds, reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
