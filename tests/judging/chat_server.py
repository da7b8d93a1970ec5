"""A chat endpoint on this machine that does what a test tells it to, well or badly."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

Act = Callable[[BaseHTTPRequestHandler], None]


def says(text: str | None, finish: str = "stop") -> Act:
    """A sound chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return sends(json.dumps({"object": "chat.completion", "model": "served", "choices": [choice]}))


def sends(body: str | bytes, status: int = 200, **headers: str) -> Act:
    """Any body; underscores of header names are hyphens."""
    data = body.encode() if isinstance(body, str) else body

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return act


def waits(seconds: float, then: Act) -> Act:
    """Another act, late."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        then(handler)

    return act


def trickles(handler: BaseHTTPRequestHandler, head: bool = False) -> None:
    """Never stops sending, a byte at a time: a body, or a header."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"X-Slow: " if head else b"Content-Length: 9999\r\n\r\n"))
    for _ in range(60):
        handler.wfile.write(b"a")
        handler.wfile.flush()
        time.sleep(0.05)


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    """Closes the connection without a word."""
    handler.close_connection = True


class ChatServer:
    """What it was told to do, and what it was asked."""

    def __init__(self, acts: Sequence[Act]) -> None:
        self.acts = list(acts)  # one for each request; the last one goes on
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.lock = threading.Lock()
        self.url = ""

    def take(self, body: bytes, headers: dict[str, str]) -> Act:
        """Note a request; what to do with it."""
        with self.lock:
            self.requests.append(json.loads(body))
            self.headers.append(headers)
            self.times.append(time.monotonic())
            return self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]

    @property
    def prompts(self) -> list[str]:
        """The texts it was asked."""
        return [request["messages"][0]["content"] for request in self.requests]


Served = TypeVar("Served", bound=ChatServer)


def chat_server(*acts: Act) -> AbstractContextManager[ChatServer]:
    """Serve on a free port."""
    return serving(ChatServer(acts))


@contextmanager
def serving(told: Served) -> Iterator[Served]:
    """Serve on a free port what a server takes."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/v1/chat/completions":
                sends("no such page", 404)(self)
                return
            try:
                told.take(body, dict(self.headers))(self)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client left, as it should

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that was killed
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
