"""The endpoint against a real server on this machine that is out, slow, busy, broken or hostile."""

# ruff: noqa: D103

from __future__ import annotations

import base64
import copy
import datetime
import email.utils
import functools
import gzip
import json
import pickle
import random
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from chat_server import Act, chat_server, hangs_up, says, sends, trickles, waits
from hypothesis import example, given
from hypothesis import strategies as st

from videogym.judging import ChatEndpoint, EndpointError, NoReply, Reply, masked
from videogym.judging.endpoint import MAX_REPLY_BYTES, retry_after_s

KEY = "sk-secret-0123456789"
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "é 🎈 <|im_end|>"}]}
FINE = says("Judgement: 1")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


def endpoint(url: str, **settings: Any) -> ChatEndpoint:
    return ChatEndpoint(url, **{"deadline_s": 20.0, "first_wait_s": 0.02, **settings})


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_a_request_is_sent_as_it_is_and_the_reply_comes_back() -> None:
    with chat_server(FINE) as server:
        assert endpoint(server.url + "/").ask(REQUEST) == Reply("Judgement: 1", True, "served")
        assert server.requests == [REQUEST]
        assert "Authorization" not in server.headers[0]


# --- what passes is tried again ----------------------------------------------------------------

PASSING: list[tuple[str, Act]] = [
    ("unreachable", hangs_up),
    ("unreachable", sends("not gzip", Content_Encoding="gzip")),
    ("server_error", sends("oops", 500)),
    ("server_error", sends("starting", 503, Retry_After="0")),
    ("server_error", sends("", 408)),
    ("rate_limit", sends('{"error": "slow down"}', 429)),
    ("rate_limit", sends("", 429, Retry_After="0")),
    ("rate_limit", sends("", 429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")),
    ("rate_limit", sends("", 429, Retry_After="soon")),
    ("malformed", sends("<html>a proxy's greeting</html>")),
    ("malformed", sends(b"\xff\xfe\x00")),
    ("malformed", sends("")),
    ("malformed", sends("[" * 100_000)),
    ("malformed", sends("[]")),
    ("malformed", sends("{}")),
    ("malformed", sends('{"choices": []}')),
    ("malformed", sends('{"choices": null}')),
    ("malformed", sends('{"choices": [null]}')),
    ("malformed", sends('{"choices": [{}]}')),
    ("malformed", sends('{"choices": [{"message": null}]}')),
    ("malformed", sends('{"choices": [{"message": {"content": 1}}]}')),
    ("malformed", says(None)),
    ("malformed", sends(gzip.compress(b" " * (MAX_REPLY_BYTES + 1)), Content_Encoding="gzip")),
]


@pytest.mark.parametrize(("code", "act"), PASSING)
def test_a_failure_that_may_pass_is_tried_again(
    caplog: pytest.LogCaptureFixture, code: str, act: Act
) -> None:
    caplog.set_level("INFO")
    with chat_server(act, FINE) as server:
        assert endpoint(server.url).ask(REQUEST).text == "Judgement: 1"
        assert len(server.requests) == 2
    assert f"asking again: {code}: " in caplog.text


@pytest.mark.parametrize(("status", "code"), [(500, "server_error"), (429, "rate_limit")])
def test_a_failure_that_stays_is_named_not_the_deadline(status: int, code: str) -> None:
    """The second attempt finds no one at home: what the server said first is the cause."""
    with chat_server(sends("", status), waits(3.0, FINE)) as server:
        with pytest.raises(NoReply) as caught:
            endpoint(server.url, deadline_s=1.0).ask(REQUEST)
        assert caught.value.code == code and len(server.requests) == 2


def test_an_outage_ends_when_the_server_is_back() -> None:
    port = unused_port()
    with pytest.raises(NoReply, match="unreachable: ConnectError"):
        endpoint(f"http://127.0.0.1:{port}/v1", deadline_s=0.2).ask(REQUEST)
    with pytest.raises(NoReply, match="unreachable"):
        endpoint("http://no-such-host.invalid/v1", deadline_s=0.2).ask(REQUEST)


def test_waits_double_and_a_servers_word_goes_first() -> None:
    with chat_server(*[sends("", 500)] * 4, FINE) as server:
        endpoint(server.url, first_wait_s=0.1).ask(REQUEST)
        gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    # Half to all of 0.1, 0.2, 0.4, 0.8, and what the exchange itself takes.
    for gap, longest in zip(gaps, (0.1, 0.2, 0.4, 0.8), strict=True):
        assert longest / 2 <= gap < longest + 1.0
    with chat_server(sends("", 429, Retry_After="1"), FINE) as server:
        endpoint(server.url).ask(REQUEST)
        assert 1.0 <= server.times[1] - server.times[0] < 3.0


def test_a_wait_beyond_the_deadline_is_waited_for_until_then_and_no_longer() -> None:
    with chat_server(sends("", 429, Retry_After="3600"), FINE) as server:
        begun = time.monotonic()
        with pytest.raises(NoReply, match="rate_limit: HTTP 429"):
            endpoint(server.url, deadline_s=0.6).ask(REQUEST)
        assert 0.6 <= time.monotonic() - begun < 2.0
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "act",
    [waits(3.0, FINE), trickles, functools.partial(trickles, head=True)],
    ids=["late", "body", "head"],
)
def test_the_deadline_holds_however_the_server_dawdles(act: Act) -> None:
    with chat_server(act) as server:
        begun = time.monotonic()
        with pytest.raises(NoReply, match=r"deadline: no reply within 0\.3 s"):
            endpoint(server.url, deadline_s=0.3).ask(REQUEST)
        assert time.monotonic() - begun < 2.0


def test_a_reply_that_trickles_in_is_left_alone_at_the_deadline() -> None:
    def readers() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "chat-endpoint"}

    earlier = readers()
    with chat_server(trickles) as server:
        with pytest.raises(NoReply, match="deadline"):
            endpoint(server.url, deadline_s=0.3).ask(REQUEST)
        until = time.monotonic() + 1.0
        while readers() - earlier:
            assert time.monotonic() < until, "a thread still reads"
            time.sleep(0.01)


# --- what does not pass ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_not_sent_again(status: int) -> None:
    with chat_server(sends("maximum context length is 8192", status)) as server:
        with pytest.raises(NoReply, match=f"refused: HTTP {status}: maximum context length"):
            endpoint(server.url).ask(REQUEST)
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
def test_a_wrong_key_address_or_model_stops_the_run(status: int) -> None:
    with chat_server(sends("go away", status, Location="/elsewhere")) as server:
        with pytest.raises(EndpointError, match=f"{server.url}: HTTP {status}: go away; check the address"):
            endpoint(server.url).ask(REQUEST)
        assert len(server.requests) == 1


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_a_cut_reply_is_known_for_one(finish: str) -> None:
    with chat_server(says("Judgement: 0", finish), says(None, finish)) as server:
        asked = endpoint(server.url)
        assert asked.ask(REQUEST) == Reply("Judgement: 0", False, "served")
        assert asked.ask(REQUEST) == Reply("", False, "served")


def test_a_run_stops_after_too_many_requests_in_a_row_without_a_reply() -> None:
    bad = sends("", 400)
    with chat_server(bad, bad, FINE, bad, bad, bad) as server:
        asked = endpoint(server.url, give_up_after=3)
        for _ in range(2):
            with pytest.raises(NoReply):
                asked.ask(REQUEST)
        asked.ask(REQUEST)
        for _ in range(2):
            with pytest.raises(NoReply):
                asked.ask(REQUEST)
        with pytest.raises(
            EndpointError, match="left 3 requests in a row without a reply, the last with ref"
        ):
            asked.ask(REQUEST)


# --- the key -----------------------------------------------------------------------------------


def test_the_key_is_sent_and_never_kept_or_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    repeats = sends(f"Incorrect API key provided: {KEY}", 500)
    with chat_server(repeats, repeats, sends(f"wrong key {KEY}", 401)) as server:
        asked = endpoint(server.url)
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
        with pytest.raises(
            EndpointError, match=r"wrong key \[key\]; check the address.*\$OPENAI_API_KEY"
        ) as caught:
            asked.ask(REQUEST)
        assert [headers["Authorization"] for headers in server.headers] == [f"Bearer {KEY}"] * 3
    shown = f"{caplog.text}{caught.getrepr()}{asked!r}{vars(asked)}".encode() + pickle.dumps(asked)
    assert b"Incorrect API key" in shown and KEY.encode() not in shown


def test_each_endpoint_has_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("LOCAL_KEY", "local")
    with chat_server(FINE) as server:
        endpoint(server.url, key_variable="LOCAL_KEY").ask(REQUEST)
        assert server.headers[0]["Authorization"] == "Bearer local"


@pytest.mark.parametrize("key", ["sk\nX-Evil: 1", "sk\x7f", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with chat_server(FINE) as server:
        with pytest.raises(EndpointError, match=r"the key in \$OPENAI_API_KEY holds characters") as caught:
            endpoint(server.url).ask(REQUEST)
        assert key not in str(caught.value) and not server.requests


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000/v1"}, "url must start with http"),
        ({"url": "ftp://host/v1"}, "url must start with http"),
        ({"url": "http:///v1"}, "url must start with http"),
        ({"url": ""}, "url must start with http"),
        ({"url": "http://host:port/v1"}, "url must be an address of HTTP"),
        ({"url": "http://me:secret@host/v1"}, r"must not hold a password; put the key into \$OPENAI"),
        ({"deadline_s": 0.0}, "deadline_s must be positive and finite, got 0"),
        ({"deadline_s": float("nan")}, "deadline_s must be positive"),
        ({"first_wait_s": float("inf")}, "first_wait_s must be positive and finite, got inf"),
        ({"give_up_after": 0}, "give_up_after must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ChatEndpoint(**{"url": "http://127.0.0.1/v1", **settings})
    assert "secret" not in str(caught.value)


# --- processes and threads ---------------------------------------------------------------------


def test_copies_ask_for_themselves_and_threads_share_one() -> None:
    with chat_server(waits(0.05, FINE)) as server:
        asked = endpoint(server.url)
        asked.ask(REQUEST)
        for other in (copy.deepcopy(asked), pickle.loads(pickle.dumps(asked))):
            assert other.ask(REQUEST).text == "Judgement: 1"
        threads = [threading.Thread(target=asked.ask, args=(REQUEST,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 11


def test_a_retry_leaves_a_seeded_run_as_it_was() -> None:
    with chat_server(sends("", 500), FINE) as server:
        random.seed(7)
        before = random.getstate()
        endpoint(server.url).ask(REQUEST)
        assert random.getstate() == before


def test_without_httpx2_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['httpx2'] = None\n"
        "from videogym.judging import ChatEndpoint, JudgementLog, NumericJudge\n"
        "try: ChatEndpoint('http://127.0.0.1/v1')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "a judge behind an endpoint needs `pip install 'videogym[judge]'`\n", done.stderr


# --- Retry-After -------------------------------------------------------------------------------


@given(st.text(max_size=40) | st.text(alphabet="0123456789.-eE+ ", max_size=400))
@example("0\x1f")
def test_any_retry_after_is_read_or_passed_over(value: str) -> None:
    wait_s = retry_after_s(value)
    assert wait_s is None or 0.0 <= wait_s < float("inf")


def test_retry_after_in_seconds_and_as_a_date() -> None:
    assert [retry_after_s(v) for v in ("0", "120", " 7 ")] == [0.0, 120.0, 7.0]
    assert [retry_after_s(v) for v in ("", "-1", "1.5", "soon", "nan", "inf")] == [None] * 6
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    wait_s = retry_after_s(email.utils.format_datetime(later, usegmt=True))
    assert wait_s is not None and 85 < wait_s <= 90
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


# --- keys and sizes in what comes back ---------------------------------------------------------


def shapes() -> list[str]:
    """How a server may repeat a key."""
    encoded = base64.b64encode(f"Bearer {KEY}".encode()).decode()
    quoted = "".join(f"%{byte:02X}" for byte in KEY.encode())
    return [
        KEY,
        f"Bearer {KEY}",
        KEY.upper(),
        KEY[:-2],
        KEY[4:],
        f"{KEY[:8]}...{KEY[-4:]}",
        encoded,
        quoted,
        KEY.encode().hex(),
    ]


@pytest.mark.parametrize("shape", shapes())
def test_a_reply_that_repeats_the_key_is_kept_without_it(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with chat_server(says(f"you sent {shape}\nJudgement: 1")) as server:
        reply = endpoint(server.url).ask(REQUEST)
    assert reply.complete and "[key]" in reply.text and reply.text.endswith("Judgement: 1")
    assert not any(piece in reply.text for piece in (shape, KEY[:9], KEY[-9:]))


def test_a_reply_that_is_no_text_is_told_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    body = json.dumps({"choices": [{"message": {"content": [{"text": KEY * 9}]}}]})
    with chat_server(sends(body)) as server, pytest.raises(NoReply) as caught:
        endpoint(server.url, deadline_s=0.3).ask(REQUEST)
    assert KEY not in str(caught.value) and len(str(caught.value)) < 500


def test_a_reply_that_is_longer_than_was_asked_for_is_cut() -> None:
    """It counts as no whole reply, and three megabytes of it are not stored."""
    with chat_server(says("a" * 3_000_000 + "\nJudgement: 1")) as server:
        reply = endpoint(server.url).ask({**REQUEST, "max_tokens": 1024})
    assert not reply.complete and len(reply.text) == 1000


def test_the_name_of_a_model_is_short_and_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    body = {"model": KEY + "m" * 9999, "choices": [{"message": {"content": "1"}, "finish_reason": "stop"}]}
    with chat_server(sends(json.dumps(body))) as server:
        reply = endpoint(server.url).ask(REQUEST)
    assert reply.model.startswith("[key]mmm") and len(reply.model) <= 300


@pytest.mark.parametrize("head", [False, True])
def test_nothing_is_left_of_a_request_at_its_deadline(head: bool) -> None:
    """Neither thread nor connection, whatever trickles."""
    with chat_server(functools.partial(trickles, head=head)) as server:
        with pytest.raises(NoReply, match="deadline"):
            endpoint(server.url, deadline_s=0.3).ask(REQUEST)
        assert not [thread for thread in threading.enumerate() if thread.name == "chat-endpoint"]


@pytest.mark.parametrize(
    "url", ["ftp://me:secret-word@host/v1", "http://host/v1?key=secret-word", "http://host/v1#secret-word"]
)
def test_an_address_with_a_secret_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"url must") as caught:
        ChatEndpoint(url)
    assert "secret-word" not in str(caught.value)


def test_words_that_are_no_key_stay() -> None:
    assert masked("EMPTY is the answer", "EMPTY") == "EMPTY is the answer"
    assert masked("a secretary, not a key", KEY) == "a secretary, not a key"
    assert masked(f"{'a' * 295}{KEY}", KEY, 300) == "a" * 295 + "[key]"
