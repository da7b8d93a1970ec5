"""The page and the few requests behind it, on this machine alone.

It listens on 127.0.0.1. Every address holds a secret, and requests that name another host are refused, so
that neither other users of the machine nor pages of the web can play or read along.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from videogym.play.game import Game, Refused, Stale
from videogym.play.review import Review
from videogym.state import Action, Invalid, Rules, action_kinds
from videogym.video import VideoError

MAX_BODY = 200_000  # bytes of a request: a thought and an answer
_HOSTS = ("127.0.0.1", "localhost")
_PARTS = {
    "": ("page.html", "text/html; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "play.css": ("play.css", "text/css; charset=utf-8"),
    "play.js": ("play.js", "text/javascript; charset=utf-8"),
    "keys.js": ("keys.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Problem(Exception):
    """A request that is not served; the message is for whoever wrote it."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class PlayServer(ThreadingHTTPServer):
    """Serves one game.

    Args:
        game: what is played.
        port: to listen on; 0: any that is free.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 128  # a browser asks for all thumbnails at once; of five some are refused

    def __init__(self, game: Game, port: int = 0) -> None:
        self.game = game
        self.token = secrets.token_urlsafe(18)
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that has gone; anything else is a fault of ours."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: PlayServer
    protocol_version = "HTTP/1.1"
    server_version = "videogym"
    sys_version = ""
    timeout = 30.0  # seconds for which a browser may keep silent

    def do_GET(self) -> None:
        self._serve(self._get)

    def do_POST(self) -> None:
        self._serve(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is for the person who plays."""

    def _serve(self, handle: Any) -> None:
        try:
            handle(self._path())
        except Problem as problem:
            self.close_connection = True  # its body may not have been read
            self._send_json({"error": str(problem)}, problem.status)
        except Stale as error:
            self._send_json({"error": str(error)}, HTTPStatus.CONFLICT)
        except Refused as error:
            self._send_json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except (ConnectionError, TimeoutError):
            raise  # a browser that has gone
        except (VideoError, OSError) as error:  # OSError: the episode could not be stored
            self._send_json({"error": str(error)}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _path(self) -> str:
        """What is asked for, below the secret.

        Raises:
            Problem: the request comes from elsewhere, or does not know the secret.
        """
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or _host_name(hosts[0]) not in _HOSTS:
            raise Problem(HTTPStatus.FORBIDDEN, "this server is for 127.0.0.1 alone")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{hosts[0]}":
            raise Problem(HTTPStatus.FORBIDDEN, "another page asks")
        token, slash, rest = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()) or not slash:
            raise Problem(HTTPStatus.NOT_FOUND, "there is nothing here; use the address that was printed")
        return rest

    def _get(self, path: str) -> None:
        if path in _PARTS:
            name, kind = _PARTS[path]
            self._send(files("videogym.play").joinpath(name).read_bytes(), kind)
        elif path == "episode":
            self._send_json(self.server.game.view())
        elif numbers := re.fullmatch(r"frames/(\d{1,9})/(\d{1,9})/(\d{1,9})\.jpg", path, re.ASCII):
            picture = self.server.game.picture(*map(int, numbers.groups()))
            if picture is None:
                raise Problem(HTTPStatus.NOT_FOUND, "this frame was not shown")
            self._send(picture, "image/jpeg")
        else:
            raise Problem(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _post(self, path: str) -> None:
        game = self.server.game
        if path not in ("act", "next") and not (path == "verdict" and isinstance(game, Review)):
            raise Problem(HTTPStatus.NOT_FOUND, "there is nothing here")
        body = self._body()
        episode = _whole(body, "episode")
        if path == "verdict":
            accepted = body.get("accepted")
            if not isinstance(accepted, bool):
                raise Problem(HTTPStatus.BAD_REQUEST, "accepted must be true or false")
            assert isinstance(game, Review)
            game.decide(episode, accepted)
        elif path == "next":
            game.next_episode(episode)
        else:
            game.act(episode, _whole(body, "turn"), _action(body, game.rules), _text(body, "thought"))
        self._send_json(game.view())

    def _body(self) -> Mapping[str, Any]:
        """The JSON object of a request.

        Raises:
            Problem: there is none, or it is too long.
        """
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,9}", length, re.ASCII) or "Transfer-Encoding" in self.headers:
            raise Problem(HTTPStatus.LENGTH_REQUIRED, "say the Content-Length")
        if int(length) > MAX_BODY:
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY} bytes")
        # Pages of the web can send a form anywhere, but not this type without being asked first.
        if self.headers.get_content_type() != "application/json":
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        try:
            body = json.loads(self.rfile.read(int(length)).decode(), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise Problem(HTTPStatus.BAD_REQUEST, f"this is no JSON: {error}") from error
        if not isinstance(body, dict):
            raise Problem(HTTPStatus.BAD_REQUEST, "send a JSON object")
        return body

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value, allow_nan=False).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        try:
            self.send_response(status)
            for name, value in {"Content-Type": kind, **_HEADERS}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            self.close_connection = True  # the browser has gone on


def _host_name(host: str) -> str:
    return host.rpartition(":")[0] if ":" in host else host


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _action(body: Mapping[str, Any], rules: Rules) -> Action:
    """The action of a request; whether it makes sense is judged when it is played.

    Raises:
        Problem: a field is missing or has another type.
    """
    kind = action_kinds().get(_text(body, "kind"))
    if kind is None or issubclass(kind, Invalid):
        raise Problem(HTTPStatus.BAD_REQUEST, f"kind must be {' or '.join(rules.actions)}")
    names = kind.parameters(rules)
    arguments = {name: body[name] for name in names if body.get(name) is not None}
    missing = [name for name in names if name not in arguments and name not in kind.optional]
    if missing:
        raise Problem(HTTPStatus.BAD_REQUEST, f"{kind.kind} needs {' and '.join(missing)}")
    action = kind.from_arguments(arguments, rules)
    if isinstance(action, Invalid):
        raise Problem(HTTPStatus.BAD_REQUEST, action.reason)
    return action


def _whole(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    if type(value) is not int:
        raise Problem(HTTPStatus.BAD_REQUEST, f"{name} must be a whole number")
    return value


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise Problem(HTTPStatus.BAD_REQUEST, f"{name} must be a text")
    return value
