"""A language model behind an OpenAI-compatible ``/chat/completions``: one reply, or why there is none.

Asks again while a failure may pass, and never longer than the deadline. Knows nothing about judging.

httpx2 rather than the openai package, which is built on it: what is sent and read is one JSON object,
and retries under one deadline for all of them would be ours either way.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import json
import logging
import math
import os
import random
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from videogym.judging.log import Reply
from videogym.judging.masking import masked

MAX_WAIT_S = 20.0  # between two attempts, where the server does not say
MAX_REPLY_BYTES = 4 << 20
MESSAGE_CHARS = 300  # of a server's error that is passed on
TOKEN_CHARS = 32  # of a reply's text for each token that was asked for; words of more are not a reply's
LEAST_CHARS = 4096  # of a reply's text that are always taken
KEPT_CHARS = 1000  # of the text of a reply that is longer
LEAVE_S = 1.0  # for a thread to end whose connection was closed
MISTAKES = (401, 403, 404, 405)  # wrong key, address or model: no later attempt can succeed
PASSING = (408, 409, 425, 429)  # and all from 500 on
CUT = ("length", "content_filter")  # finish reasons of a reply that is not whole
_log = logging.getLogger(__name__)


class EndpointError(RuntimeError):
    """The endpoint cannot be used as it is set up, or has been out for too long."""


class NoReply(Exception):
    """One request got no reply.

    | code | meaning |
    |---|---|
    | `unreachable` | no connection, or one that broke |
    | `deadline` | no reply in time |
    | `rate_limit` | HTTP 429 until the deadline |
    | `server_error` | HTTP 5xx until the deadline |
    | `refused` | another HTTP 4xx: this request, such as one too long for the model |
    | `malformed` | no chat completion in the reply until the deadline |
    """

    def __init__(self, code: str, reason: str, *, passing: bool = True, wait_s: float = 0.0) -> None:
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason
        self.passing = passing  # whether another attempt may succeed
        self.wait_s = wait_s  # least time before another attempt, as the server asks


class ChatEndpoint:
    """Where a language model is asked. Threads may share one; pickling keeps the settings only.

    Args:
        url: up to ``/v1``, e.g. ``"http://127.0.0.1:8000/v1"``.
        key_variable: environment variable that holds the key, read at every request. The key is never
            kept, logged or shown, and is masked where a server repeats it, see `masked`. Where the variable
            is not set, none is sent.
        deadline_s: seconds for one reply, with all attempts and waits. A server that asks for a longer
            wait is waited for until then, which keeps callers from pressing it.
        first_wait_s: before the second attempt; doubled each time up to 20 s, and shortened at random so
            that callers do not come back together. A longer ``Retry-After`` of the server is kept.
        give_up_after: requests in a row without a reply after which `ask` raises `EndpointError`: a run
            whose judge is gone should stop rather than learn from nothing.

    Raises:
        ImportError: httpx2 is not installed.
        ValueError: the address is not one of HTTP, or holds a password, a query or a fragment; or a number
            is out of range.
    """

    def __init__(
        self,
        url: str,
        *,
        key_variable: str = "OPENAI_API_KEY",
        deadline_s: float = 60.0,
        first_wait_s: float = 0.5,
        give_up_after: int = 50,
    ) -> None:
        httpx2 = _httpx2()
        try:
            address = httpx2.URL(url)
        except (httpx2.InvalidURL, TypeError) as error:
            shown = masked(repr(url))
            raise ValueError(f"url must be an address of HTTP, got {shown}: {masked(str(error))}") from None
        if address.userinfo:
            raise ValueError(f"url must not hold a password; put the key into ${key_variable}")
        if address.scheme not in ("http", "https") or not address.host:
            raise ValueError(f"url must start with http:// or https://, got {masked(url)!r}")
        if address.query or address.fragment:
            raise ValueError(f"url must end with its path; put the key into ${key_variable}")
        for name, value in (("deadline_s", deadline_s), ("first_wait_s", first_wait_s)):
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if give_up_after < 1:
            raise ValueError(f"give_up_after must be at least 1, got {give_up_after}")
        self.url = url.rstrip("/")
        self.key_variable, self.deadline_s, self.first_wait_s = key_variable, deadline_s, first_wait_s
        self.give_up_after = give_up_after
        self._unanswered = 0  # requests in a row
        self._client: Any = None
        self._client_pid = 0

    def __repr__(self) -> str:
        return f"ChatEndpoint({self.url!r}, key_variable={self.key_variable!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    def ask(self, request: Mapping[str, Any]) -> Reply:
        """The reply to a request.

        Args:
            request: body of a chat completion.

        Raises:
            NoReply: there is none; the code says whether the server was out of reach, too slow, too
                busy, broken, refused this request, or replied with what is no chat completion.
            EndpointError: the key, the address or the model is wrong, or too many requests in a row
                were left without a reply.
        """
        try:
            most = max(LEAST_CHARS, TOKEN_CHARS * int(request.get("max_tokens") or 0))
            reply = self._insist(json.dumps(request).encode(), most)
        except NoReply as failure:
            self._unanswered += 1
            if self._unanswered >= self.give_up_after:
                raise EndpointError(
                    f"{self.url} left {self._unanswered} requests in a row without a reply, the last "
                    f"with {failure}"
                ) from failure
            raise
        self._unanswered = 0
        return reply

    def _insist(self, content: bytes, most: int) -> Reply:
        """Attempt until there is a reply, the failure is final, or the deadline has passed."""
        self._http()  # made before the clock starts: reading certificates takes a while
        until = time.monotonic() + self.deadline_s
        dice = random.Random()  # not the global generator: a retry must not change a seeded run
        backoff_s = self.first_wait_s
        cause: NoReply | None = None
        while True:
            try:
                return self._attempt(content, until, most)
            except NoReply as failure:
                if not failure.passing:
                    raise
                # What has kept us until the deadline says more than that it has passed.
                cause = failure if cause is None or failure.code != "deadline" else cause
            wait_s = max(cause.wait_s, backoff_s * dice.uniform(0.5, 1.0))
            time.sleep(max(0.0, min(wait_s, until - time.monotonic())))
            if time.monotonic() >= until:
                raise cause
            _log.info("asking again: %s", cause)
            backoff_s = min(2 * backoff_s, MAX_WAIT_S)

    def _attempt(self, content: bytes, until: float, most: int) -> Reply:
        # In a thread of its own: timeouts of the client are per read and do not cover the resolver, the
        # only thing in which a thread can be left behind.
        line = _Line()
        future: Future[tuple[int, Mapping[str, str], bytes]] = Future()

        def exchange() -> None:
            try:
                future.set_result(self._exchange(content, until, line))
            except BaseException as error:  # raised by `result` below: no thread of ours dies unheard
                future.set_exception(error)

        thread = threading.Thread(target=exchange, daemon=True, name="chat-endpoint")
        thread.start()
        try:
            status, headers, body = future.result(max(0.0, until - time.monotonic()))
        except FutureTimeout:
            line.hang_up()
            thread.join(LEAVE_S)
            raise self._late() from None
        return self._read(status, headers, body, most)

    def _exchange(self, content: bytes, until: float, line: _Line) -> tuple[int, Mapping[str, str], bytes]:
        """Send and receive; a reply that comes byte by byte is left at the deadline."""
        httpx2 = _httpx2()
        # Nothing compressed, of which a little can be very much.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        body = bytearray()
        try:
            with self._http().stream(
                "POST",
                f"{self.url}/chat/completions",
                content=content,
                headers=headers,
                timeout=max(1e-3, until - time.monotonic()),
                extensions={"trace": line.watch},
            ) as response:
                for chunk in response.iter_bytes():
                    body += chunk
                    if time.monotonic() >= until:
                        raise self._late()
                    if len(body) > MAX_REPLY_BYTES:
                        raise NoReply("malformed", f"a reply of more than {MAX_REPLY_BYTES} bytes")
                return response.status_code, response.headers, bytes(body)
        except httpx2.TimeoutException:
            raise self._late() from None
        except httpx2.RequestError as error:
            raise NoReply("unreachable", f"{type(error).__name__}: {self._safe(str(error))}") from None

    def _http(self) -> Any:
        """The client; a forked process makes its own, for the lock of ours may be held in it for ever."""
        if self._client is None or self._client_pid != os.getpid():
            httpx2 = _httpx2()
            # A connection for each request: a judgement takes long enough, and none is found closed later.
            self._client = httpx2.Client(limits=httpx2.Limits(max_keepalive_connections=0))
            self._client_pid = os.getpid()
        return self._client

    def _key(self) -> str:
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            # Checked here: the client would show it in its error.
            raise EndpointError(f"the key in ${self.key_variable} holds characters no header can hold")
        return key

    def _read(self, status: int, headers: Mapping[str, str], body: bytes, most: int) -> Reply:
        if 200 <= status < 300:
            return self._reply(body, most)
        said = f"HTTP {status}: {self._safe(body.decode('utf-8', 'replace'))}"
        if status < 400 or status in MISTAKES:
            raise EndpointError(
                f"{self.url}: {said}; check the address, the model and ${self.key_variable}"
            )
        wait_s = retry_after_s(headers.get("Retry-After", "")) or 0.0
        if status == 429:
            raise NoReply("rate_limit", said, wait_s=wait_s)
        if status >= 500 or status in PASSING:
            raise NoReply("server_error", said, wait_s=wait_s)
        raise NoReply("refused", said, passing=False)

    def _late(self) -> NoReply:
        return NoReply("deadline", f"no reply within {self.deadline_s:g} s")

    def _safe(self, text: str) -> str:
        """A server's words, short and without the key, which some servers repeat."""
        return masked(text, self._key(), MESSAGE_CHARS)

    def _reply(self, body: bytes, most: int) -> Reply:
        """What a completion says, without the key; one that is longer than it can be counts as cut."""
        said, refused, finish, model, usage = self._completion(body)
        cut = finish in CUT or len(said) > most
        text = masked(said, self._key(), KEPT_CHARS if len(said) > most else None)
        return Reply(text, not cut, self._safe(model), refused, *_tokens(usage))

    def _completion(self, body: bytes) -> tuple[str, bool, Any, str, Any]:
        """Text, whether it is a refusal, why it ended, who said it, and what it cost."""
        try:
            completion = json.loads(body)
            choice = completion["choices"][0]
            message, finish = choice["message"], choice.get("finish_reason")
            text, refusal = message.get("content"), message.get("refusal")
            told = finish, str(completion.get("model") or ""), completion.get("usage")
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
            why = self._safe(f"{type(error).__name__}: {error}")
            raise NoReply("malformed", f"not a chat completion: {why}") from None
        if isinstance(text, str):
            return text, False, *told
        if isinstance(refusal, str):
            return refusal, True, *told
        if finish in CUT:
            return "", False, *told
        raise NoReply("malformed", f"the completion's content is {self._safe(repr(text))}, not a text")


def _tokens(usage: Any) -> tuple[int | None, int | None]:
    """Tokens in and out, as a completion tells them."""
    told = usage if isinstance(usage, dict) else {}
    counts = told.get("prompt_tokens"), told.get("completion_tokens")
    tokens_in, tokens_out = (count if type(count) is int and count >= 0 else None for count in counts)
    return tokens_in, tokens_out


class _Line:
    """The connection of one request, which another thread can close."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: Any = None
        self._over = False

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Note the socket; httpx2 tells of what it does."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket")
                over = self._over
            if over:
                self.hang_up()

    def hang_up(self) -> None:
        """Wake who waits for an answer, now or as soon as there is a connection."""
        with self._lock:
            self._over, reached = True, self._socket
        if reached is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                reached.shutdown(socket.SHUT_RDWR)


def retry_after_s(value: str) -> float | None:
    """Seconds that a ``Retry-After`` header asks to wait, 0.0 for a past date; None if it says nothing.

    >>> retry_after_s("2"), retry_after_s("soon")
    (2.0, None)
    """
    digits = value.strip()
    if digits.isdecimal() and len(digits) < 10:
        return float(digits)  # which takes fewer characters for space than `strip` does
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())


def _httpx2() -> Any:
    try:
        import httpx2
    except ImportError as error:
        raise ImportError("a judge behind an endpoint needs `pip install 'videogym[judge]'`") from error
    return httpx2
