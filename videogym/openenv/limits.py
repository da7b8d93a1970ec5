"""Limits on what clients send and how long they are silent.

This is ASGI and knows neither episodes nor tools. Sessions are connections, and plain requests that play
for as long as they take; both are counted here, since OpenEnv counts connections alone. Sessions over
HTTP, which a second client may join by their id, are refused: a session is one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videogym.serving import Limits

_POLICY_VIOLATION, _TOO_BIG = 1008, 1009  # close codes of RFC 6455
_TRY_AGAIN_LATER = 1013  # of IANA's registry of close codes
_PLAYING = ("/reset", "/step", "/state")  # for each of these OpenEnv makes an environment and closes it


class Limited:
    """An application within limits.

    Args:
        app: the application.
        limits: what its clients may take.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._taken = 0  # sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or one connection."""
        if scope["type"] == "http" and scope["path"] not in _PLAYING:
            await self._request(scope, receive, send)
        elif scope["type"] == "websocket" and not _is_session(scope):
            await receive()  # the client's wish to connect
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})  # refused with status 403
        elif scope["type"] in ("http", "websocket") and self._taken >= self._limits.sessions:
            await self._refuse(scope, receive, send)
        elif scope["type"] in ("http", "websocket"):
            serve = self._request if scope["type"] == "http" else self._connection
            self._taken += 1
            try:
                await serve(scope, receive, send)
            finally:
                self._taken -= 1
        else:
            await self._app(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell one too many; a connection as OpenEnv's client understands it."""
        told = f"all {self._limits.sessions} sessions are taken; ask again later"
        if scope["type"] == "http":
            await JSONResponse({"detail": told}, 503)(scope, receive, send)
            return
        error = {"type": "error", "data": {"message": told, "code": "CAPACITY_REACHED"}}
        await receive()  # the client's wish to connect
        with contextlib.suppress(OSError):  # the client is gone
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": json.dumps(error)})
            await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/mcp":
            refusal = {"detail": "a session is one WebSocket connection; MCP is served elsewhere"}
            await JSONResponse(refusal, 404)(scope, receive, send)
            return
        limit, idle_s, got, more = self._limits.message_bytes, self._limits.idle_s, 0, True

        async def limited() -> Message:
            nonlocal got, more
            try:
                # Behind the body comes nothing until the client leaves: that may take its time.
                message = await asyncio.wait_for(receive(), idle_s if more else None)
            except TimeoutError as error:
                raise HTTPException(408, f"no more of the body came within {idle_s:g} s") from error
            got, more = got + len(message.get("body", b"")), message.get("more_body", False)
            if got > limit:
                raise HTTPException(413, f"a body has at most {limit} bytes")
            return message

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            await JSONResponse({"detail": f"a body has at most {limit} bytes"}, 413)(scope, receive, send)
            return
        await self._app(scope, limited, send)

    async def _connection(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits, closed = self._limits, False

        async def close(code: int, reason: str) -> Message:
            nonlocal closed
            closed = True
            await send({"type": "websocket.close", "code": code, "reason": reason})
            return {"type": "websocket.disconnect", "code": code, "reason": reason}

        async def limited() -> Message:
            try:
                message = await asyncio.wait_for(receive(), limits.idle_s)
            except TimeoutError:
                return await close(_POLICY_VIOLATION, f"no message came within {limits.idle_s:g} s")
            if _length(message) > limits.message_bytes:
                return await close(_TOO_BIG, f"a message has at most {limits.message_bytes} bytes")
            return message

        async def unless_closed(message: Message) -> None:
            nonlocal closed
            if closed:
                return
            try:
                await send(message)
            except OSError:  # the client is gone; the next receive says so too
                closed = True

        await self._app(scope, limited, unless_closed)


def _is_session(scope: Scope) -> bool:
    """Whether a connection is a session of its own."""
    return scope["path"] == "/ws" and "session_id" not in parse_qs(scope["query_string"].decode("latin-1"))


def _length(message: Any) -> int:
    """Bytes of what a client sent."""
    text, data = message.get("text"), message.get("bytes")
    return len(text.encode()) if text is not None else len(data or b"")
