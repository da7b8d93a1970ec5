"""The requests behind the page: a person plays by the rules, nobody else plays along, nothing breaks it."""

# ruff: noqa: D102, D103

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from films import film, noise_inside
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from videogym import Answer, Crop, Region, Segment, Select, Task, TextActions, VideoQAEnv
from videogym.grammars import get_grammar
from videogym.play import Game, PlayServer
from videogym.play.server import MAX_BODY
from videogym.recipes import get_recipe
from videogym.traces import RecordTraces, read_traces
from videogym.video import VideoError

ADDRESS = "synthetic:brief_event?level=0&duration_s=600&seed=1"
SECRET = "an answer that nobody guesses"
TASK = Task("secret-task", ADDRESS, "Which flag?", "choice", ("red", "blue"), "B", (Segment(301, 331),))
OPEN = Task(
    "open", ADDRESS, "What?", "open", answer=SECRET, evidence=(Segment(307.25, 333.5),),
    evidence_region=Region(0.125, 0.25, 0.375, 0.625),
)  # fmt: skip


class Client:
    """A browser's side of the line."""

    def __init__(self, server):
        self.server = server
        self.told = ""  # everything that was ever answered

    def ask(self, method, path, body=None, *, token=None, **headers):
        """Status and content of an answer."""
        place = f"/{token or self.server.token}/{path}"
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=60)) as line:
            line.request(method, quote(place, safe="/%"), body, headers)
            answer = line.getresponse()
            content = answer.read()
            self.headers = answer.headers
        self.told += content.decode("latin-1")
        return answer.status, content

    def view(self):
        return json.loads(self.ask("GET", "episode")[1])

    def post(self, path, body):
        sent = body if isinstance(body, bytes | str) else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        status, content = self.ask("POST", path, sent, **headers)
        return status, json.loads(content)

    def act(self, **action):
        view = self.view()
        body = {"episode": view["episode"], "turn": len(view["turns"]), "thought": "", **action}
        return self.post("act", body)

    def crop(self, start_s, end_s, region=None, **more):
        return self.act(kind="crop", start_s=start_s, end_s=end_s, region=region, **more)

    def answer(self, text, **more):
        return self.act(kind="answer", text=text, **more)


@pytest.fixture
def serve():
    """Serve a game over tasks; ended with the test."""
    servers = []

    def serve(tasks=(TASK,), recipe="DEFAULT", traces=None, **how):
        env = VideoQAEnv(tasks, recipe, **how)
        env = env if traces is None else RecordTraces(env, traces)
        server = PlayServer(Game(env))
        servers.append((server, env))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return Client(server)

    yield serve
    for server, env in servers:
        server.shutdown()
        server.server_close()
        env.close()


# --- an episode ----------------------------------------------------------------------------------


def test_a_person_searches_by_text(serve):
    client = serve("procedural:brief_event?duration_s=60&count=2", "FIND")
    view = client.view()
    assert view["looks"] == ["find", "crop"] and view["searches"]
    status, view = client.act(kind="find", query="a shape <b>")
    assert status == 200 and view["clips"][1]["pictures"] == 4
    (result,) = view["turns"][0]["results"]
    assert (result["kind"], result["label"], result["segment"]) == ("find", "“a shape <b>”", None)
    status, view = client.act(kind="find", query=" ")
    assert view["turns"][1]["results"][0]["error"]["code"] == "query"
    assert client.act(kind="find", query=7)[0] == 400 and client.act(kind="find")[0] == 400


def test_an_episode_is_played_and_told_at_its_end(serve):
    client = serve([OPEN])
    view = client.view()
    assert (view["question"], view["kind"], view["options"]) == ("What?", "open", [])
    assert (view["looks"], view["regions"]) == (["crop"], True)
    assert (view["turns_left"], view["frames_shown"], view["frames_left"]) == (6, 32, 64)
    status, view = client.crop(300.0, 330.0, [0.1, 0.2, 0.5, 0.7])
    assert status == 200 and view["clips"][1]["region"] == [0.1, 0.2, 0.5, 0.7]
    assert (view["clips"][1]["pictures"], view["turns_left"], view["frames_left"]) == (16, 5, 48)
    status, view = client.crop(50.0, 20.0)
    assert view["turns"][1]["results"][0]["error"] == {
        "code": "order",
        "reason": "The end must be after the start, got 50 to 20 s.",
    }
    assert not view["over"] and view["outcome"] is None
    for secret in (SECRET, "307.25", "333.5", "0.125", "0.625", "secret"):
        assert secret not in client.told, f"{secret} is told before the end"
    status, view = client.answer(SECRET)
    told = view["outcome"]
    assert view["over"] and told["correct"] is True and (told["right"], told["given"]) == (SECRET, SECRET)
    assert told["evidence"] == [[307.25, 333.5]] and told["evidence_region"] == [0.125, 0.25, 0.375, 0.625]
    assert told["reward"] == pytest.approx(sum(turn["reward"] for turn in told["paid"]))
    assert told["paid"][2]["terms"]["answer"] == 1.0 and told["paid"][0]["terms"]["coverage"] > 0


def test_the_pictures_are_those_a_policy_sees(serve):
    """Of the same frames at the recipe's pixels, and of nothing else."""
    client = serve()
    client.crop(300.0, 330.0, [0.25, 0.5, 0.75, 1.0])
    view = client.view()
    env = VideoQAEnv([TASK])
    for number, box in ((0, None), (1, (0.25, 0.5, 0.75, 1.0))):
        clip = view["clips"][number]
        status, content = client.ask("GET", f"frames/1/{number}/7.jpg")
        shown = np.asarray(Image.open(io.BytesIO(content)), dtype=float)
        time_s = clip["times_s"][7]
        due = env.store.frames(ADDRESS, [time_s], size=tuple(clip["size"]), region=box).pixels[0]
        assert status == 200 and np.abs(shown - due).mean() < 4, "no more than JPEG changes"
        assert clip["size"][0] * clip["size"][1] <= 224 * 224
    for place in ("0/0/0", "1/0/32", "1/2/0", "2/0/0", "1/0/-1", "1/0/x", "1/0/٣", "1/0/1e3"):
        assert client.ask("GET", f"frames/{place}.jpg")[0] == 404, place


def test_the_same_rules_and_budget_as_for_a_policy(serve):
    """Three crops of 16 and 32 at first leave 16 of 96; two more turns, and the budget refuses the last."""
    client = serve()
    actions = [Crop(10.0 * i, 10.0 * i + 9) for i in range(5)]
    for action in actions:
        status, view = client.crop(action.start_s, action.end_s)
        assert status == 200
    assert view["turns"][-1]["results"][0]["error"]["code"] == "budget" and view["frames_left"] == 0
    status, view = client.answer("A")
    assert view["over"] and view["outcome"]["correct"] is False
    env = VideoQAEnv([TASK])
    env.reset(options={"task_id": TASK.task_id})
    paid = [env.step(action)[1] for action in (*actions, Answer("A"))]
    assert [turn["reward"] for turn in view["outcome"]["paid"]] == pytest.approx(paid)


def test_the_last_turn_ends_it(serve):
    client = serve(recipe="VIDEO_MTR/code")
    for _ in range(3):
        status, view = client.act(kind="select", start_s=0.0, end_s=100.0)
        assert status == 200
    assert view["over"] and view["outcome"]["ending"] == "turn_limit" and view["outcome"]["given"] is None
    assert view["clips"][-1]["pictures"] == 0, "frames of the last turn are shown to nobody"
    assert client.answer("A")[0] == 409


def test_questions_follow_each_other_and_bad_videos_are_passed_over(serve, tmp_path):
    film(tmp_path / "a.mp4")
    noise_inside(tmp_path / "noisy.mp4")
    kinds = dict(kind="choice", options=("x", "y"), answer="A")
    names = ("noisy.mp4", "a.mp4", "gone.mp4")
    tasks = [Task(name, name, f"{name}?", **kinds) for name in names]
    client = serve(tasks, video_root=str(tmp_path))
    view = client.view()
    assert view["question"] == "a.mp4?" and view["position"] == [2, 3]
    assert len(view["skipped"]) == 1 and "noisy.mp4" in view["skipped"][0]
    status, view = client.post("next", {"episode": 1})
    assert status == 200 and view["episode"] == 2 and view["question"] == "a.mp4?"
    assert [re.search(r"(gone|noisy)\.mp4", why)[1] for why in view["skipped"]] == ["gone", "noisy"]
    (tmp_path / "a.mp4").unlink()
    status, told = client.post("next", {"episode": 2})
    assert status == 500 and "none of the 3 tasks has a usable video" in told["error"]
    assert (view := client.view())["episode"] == 2 and view["question"] == "a.mp4?"
    assert client.answer("A")[1]["outcome"]["correct"] is True, "the episode before goes on"


def test_frames_that_cannot_be_decoded_are_a_fault_and_no_clip(serve, tmp_path):
    """Noise over frames 60 to 89 of 30 a second; first frames beside it, a look into it."""
    noise_inside(tmp_path / "noisy.mp4")
    kinds = dict(kind="choice", options=("x", "y"), answer="A")
    recipe = get_recipe("DEFAULT")
    recipe = replace(recipe, rules=replace(recipe.rules, skim_frames=2))
    traces = tmp_path / "t.jsonl"
    client = serve([Task("n", "noisy.mp4", "?", **kinds)], recipe, traces, video_root=str(tmp_path))
    status, view = client.crop(2.0, 3.0)
    assert status == 200 and "cannot be decoded" in view["turns"][0]["fault"]
    assert len(view["clips"]) == 1 and view["turns_left"] == 5
    status, view = client.answer("A")
    assert view["outcome"]["correct"] is True
    (trace,) = read_traces(traces).episodes
    assert trace.turns[0].turn.fault and trace.correct


# --- the trace -----------------------------------------------------------------------------------

LOOKS = {
    "DEFAULT": [Crop(300.5, 330.25, (0.1, 0.2, 0.5, 0.7)), Crop(90.0, 30.0), Answer("B")],
    "LONGVT/paper": [Crop(300.5, 330.25), Crop(-5.0, 30.0), Answer("B")],
    "LONGVT/code": [Crop(300.5, 330.25), Answer("B")],
    "VIDEO_MTR/paper": [Select(100.0, 160.5), Select(300.0, 340.0), Answer("B")],
    "VIDEO_MTR/code": [Select(100.0, 160.5), Answer("B")],
}


@pytest.mark.parametrize("recipe", LOOKS)
def test_an_episode_is_stored_as_text_that_plays_it_again(serve, tmp_path, recipe):
    traces = tmp_path / "t.jsonl"
    client = serve(recipe=recipe, traces=traces)
    for i, action in enumerate(LOOKS[recipe]):
        kind = type(action).__name__.lower()
        status, view = client.act(kind=kind, thought=f"I look: thought {i}, é.", **asdict(action))
        assert status == 200, view
    (trace,) = read_traces(traces).episodes
    texts = [turn.turn.text for turn in trace.turns]
    assert trace.correct and texts == view["outcome"]["texts"]
    assert all(f"thought {i}, é." in text for i, text in enumerate(texts))
    assert all(turn.turn.well_formed for turn in trace.turns)
    env = TextActions(VideoQAEnv([TASK], recipe), get_recipe(recipe).grammar)
    env.reset(seed=0)
    for turn in trace.turns:
        _, reward, *_ = env.step(turn.turn.text)
        assert env.unwrapped.state.turns[-1] == turn.turn and reward == pytest.approx(turn.reward)
    assert env.unwrapped.state.ending == trace.ending


@given(st.floats(0, 599.9), st.floats(0.1, 599), st.text(max_size=40))
@settings(max_examples=40)
def test_what_is_played_has_words_or_is_refused(start_s, length_s, thought):
    """Whatever is dragged and thought: one turn is played as dragged, or nothing is."""
    game = Game(VideoQAEnv([TASK], "LONGVT_TINY"))
    action = Crop(start_s, start_s + length_s)
    try:
        game.act(1, 0, action, thought)
    except ValueError as error:
        assert "tags" in str(error) and not game.view()["turns"]
        return
    (result,) = game.view()["turns"][0]["results"]
    assert result["segment"] == [action.start_s, min(action.end_s, 600.0)]
    state = game._inner.state
    read = get_grammar("longvt/strict").parse(state.turns[0].text, state)
    assert read.actions == (action,) and thought.strip() in state.turns[0].text


def test_tags_in_a_thought_cost_nothing(serve):
    client = serve()
    status, told = client.crop(10.0, 20.0, thought="</think><tool_call>")
    assert status == 400 and "Leave tags out" in told["error"]
    assert client.view()["turns"] == []


def test_an_episode_that_cannot_be_stored_is_said_to_be_so_and_stored_later(serve, tmp_path, monkeypatch):
    traces, file = tmp_path / "t.jsonl", "videogym.traces.recording.append_trace"
    client = serve(traces=traces)

    def full(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(file, full)
        for status, said in (client.answer("B"), client.post("next", {"episode": 1})):
            assert status == 500 and "No space left on device" in said["error"]
        outcome = client.view()["outcome"]
        assert outcome["correct"] and len(outcome["paid"]) == 1
    assert client.post("next", {"episode": 1})[0] == 200
    (trace,) = read_traces(traces).episodes
    assert trace.correct and sum(turn.reward for turn in trace.turns) == outcome["reward"] > 0


def test_an_action_without_words_is_judged_all_the_same(serve, tmp_path):
    """Between two candidate frames there is nothing to name; the rules refuse it and say why."""
    traces = tmp_path / "t.jsonl"
    client = serve(recipe="VIDEO_MTR/paper", traces=traces)
    status, view = client.act(kind="select", start_s=1.0, end_s=2.0, thought="so")
    assert status == 200 and view["turns"][0]["results"][0]["error"]["code"] == "no_frames"
    status, view = client.act(kind="crop", start_s=1.0, end_s=9.0)
    assert view["turns"][1]["results"][0]["error"]["code"] == "unknown_action"
    client.answer("B")
    (trace,) = read_traces(traces).episodes
    assert [turn.turn.text is None for turn in trace.turns] == [True, True, False]


@pytest.mark.parametrize("text", ["", "Z", "x" * 2000, "</answer><b>", "\ud800", "\x00\x1b[31m", "🎞️"])
def test_odd_answers_are_judged_by_the_rules(serve, tmp_path, text):
    client = serve(traces=tmp_path / "t.jsonl")
    status, view = client.answer(text)
    assert status == 200 and view["turns"][0]["results"][0]["error"] is not None and not view["over"]
    assert client.answer("B")[1]["outcome"]["correct"] is True
    assert len(read_traces(tmp_path / "t.jsonl").episodes) == 1


# --- who may ask, and what -----------------------------------------------------------------------


def test_nobody_plays_who_does_not_know_the_address(serve):
    client = serve()
    token = client.server.token
    assert len(token) >= 20
    requests = (("GET", ""), ("GET", "episode"), ("GET", "frames/1/0/0.jpg"), ("POST", "act"))
    for wrong in ("wrong", token[:-1], token + "x", token.swapcase(), "%2e%2e", "é"):
        for method, path in requests:
            status, content = client.ask(method, path, token=wrong)
            assert status == 404 and b"Which flag" not in content, wrong
    assert client.ask("GET", "", token="/")[0] == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Host": "[::1]:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1"},
    ],
)
def test_other_hosts_and_other_pages_are_refused(serve, headers):
    client = serve()
    for method, path in (("GET", "episode"), ("POST", "act")):
        status, content = client.ask(method, path, **headers)
        assert status == 403 and b"Which flag" not in content


def test_it_listens_on_this_machine_alone_and_says_so_to_the_browser(serve):
    client = serve()
    assert client.server.server_address[0] == "127.0.0.1"
    assert client.ask("GET", "episode", Host=f"localhost:{client.server.server_port}")[0] == 200
    page = client.ask("GET", "")[1].decode()
    policy = client.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "*" not in policy
    assert client.headers["Referrer-Policy"] == "no-referrer", "the address must not leave the page"
    assert client.headers["Server"].strip() == "videogym"
    outside_or_inline = re.search(r"https?://|<style|style=|<script>|\son\w+=", page)
    assert "<script" in page and not outside_or_inline


BAD_BODIES = [
    b"",
    b"{",
    b"[]",
    b"7",
    b"\xff",
    b"null",
    b"{}",
    b"[" * 50_000,
    b'{"episode": 1}',
    b'{"episode": true, "turn": 0, "kind": "answer", "text": "B", "thought": ""}',
    b'{"episode": 1, "turn": 0.0, "kind": "answer", "text": "B", "thought": ""}',
    b'{"episode": 1, "turn": 0, "kind": "answer", "text": 7, "thought": ""}',
    b'{"episode": 1, "turn": 0, "kind": "answer", "thought": ""}',
    b'{"episode": 1, "turn": 0, "kind": "answer", "text": "B"}',
    b'{"episode": 1, "turn": 0, "kind": "peek", "thought": ""}',
    b'{"episode": 1, "turn": 0, "kind": ["crop"], "thought": ""}',
    b'{"episode": 1, "turn": 0, "kind": "crop", "start_s": 1, "end_s": NaN, "thought": ""}',
    b'{"episode": 1, "turn": 0, "kind": "crop", "start_s": 1, "end_s": 1e999, "thought": ""}',
    b'{"episode": 1, "turn": 0, "kind": "crop", "start_s": 1, "end_s": ' + b"9" * 400 + b', "thought": ""}',
    b'{"episode": 1, "turn": 0, "kind": "crop", "start_s": "1", "end_s": 2, "thought": ""}',
    b'{"episode": 1, "turn": 0, "kind": "crop", "start_s": 1, "end_s": 2, "region": [1, 2], "thought": ""}',
    b'{"episode": 1, "turn": 0, "kind": "crop", "start_s": 1, "end_s": 2, "region": {}, "thought": ""}',
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_a_request_of_the_wrong_shape_costs_nothing(serve, body):
    client = serve()
    status, told = client.post("act", body)
    assert status == 400 and set(told) == {"error"}
    assert client.view()["turns"] == []


def test_what_the_page_names_is_there(serve):
    """Scripts, style and icon; one of the scripts is that of the keys, which the page tells of."""
    client = serve()
    text = client.ask("GET", "")[-1].decode()
    named = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert {"play.js", "keys.js", "play.css"} <= set(named)
    assert [client.ask("GET", name)[0] for name in named] == [200] * len(named)
    assert all(f"<kbd>{key}</kbd>" in text for key in ("A", "←", "→", "Shift", "Enter"))


def test_other_requests_are_refused(serve):
    client = serve()
    json_type = {"Content-Type": "application/json"}
    assert client.ask("POST", "act", "{}")[0] == 415, "a form of another page"
    assert client.ask("POST", "act", "{}", **{"Content-Type": "text/plain"})[0] == 415
    assert client.ask("POST", "act", b"x" * (MAX_BODY + 1), **json_type)[0] == 413
    assert client.ask("POST", "act", **json_type, **{"Content-Length": "-5"})[0] == 411
    chunked = {"Transfer-Encoding": "chunked"}
    assert client.ask("POST", "act", iter([b"{}"]), **json_type, **chunked)[0] == 411
    assert client.ask("POST", "episode", "{}", **json_type)[0] == 404
    for path in ("../../etc/passwd", "page.html", "game.py", "frames", "act", "%00", "play.js/"):
        assert client.ask("GET", path)[0] == 404, path
    assert client.ask("DELETE", "episode")[0] == 501
    assert client.view()["turns"] == []


NO_HTTP = [
    b"",
    b"GET http://[::1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"GET / HTTP/9\r\n\r\n",
    b"A" * 70_000 + b"\r\n\r\n",
]


@pytest.mark.parametrize("sent", NO_HTTP, ids=range(len(NO_HTTP)))
def test_what_is_no_http_ends_one_connection_and_no_more(serve, capsys, sent):
    client = serve()
    with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=30) as line:
        line.sendall(sent)
        line.shutdown(socket.SHUT_WR)
        try:
            while line.recv(65_536):
                pass
        except ConnectionError:
            pass
    assert client.view()["episode"] == 1 and capsys.readouterr().err == ""


def test_one_turn_is_played_once_however_often_it_is_sent(serve, tmp_path):
    """Twenty windows send their first look at once."""
    client = serve(traces=tmp_path / "t.jsonl")
    body = dict(episode=1, turn=0, kind="crop", start_s=10.0, end_s=20.0, region=None, thought="")
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: client.post("act", body)[0], range(20)))
        frames = list(pool.map(lambda i: client.ask("GET", f"frames/1/0/{i}.jpg")[0], range(32)))
    assert sorted(statuses) == [200] + [409] * 19 and set(frames) == {200}
    assert len(client.view()["turns"]) == 1
    with ThreadPoolExecutor(20) as pool:
        nexts = list(pool.map(lambda _: client.post("next", {"episode": 1})[0], range(20)))
    assert sorted(nexts) == [200] + [409] * 19 and client.view()["episode"] == 2
    (trace,) = read_traces(tmp_path / "t.jsonl").episodes
    assert trace.cut == "left" and len(trace.turns) == 1


# --- the command ---------------------------------------------------------------------------------


def heeding_ctrl_c():
    """In a process to be: a shell lets what it starts in the background pass over Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_command_serves_until_ctrl_c_and_keeps_what_was_left(tmp_path):
    command = [sys.executable, "-m", "videogym", "play", "--traces", "t.jsonl", "--task-id"]
    tasks = ["--tasks", "procedural:brief_event?duration_s=60&count=3"]
    task_id = "brief_event-L0-60s-train-s0-000002"
    process = subprocess.Popen(
        [*command, task_id, *tasks],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_ctrl_c,
    )
    try:
        port, token = re.search(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/", process.stdout.readline()).groups()
        client = Client(type("Server", (), {"server_port": int(port), "token": token}))
        assert client.view()["position"] == [3, 3]
        assert client.crop(10.0, 20.0)[0] == 200
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()
    (trace,) = read_traces(tmp_path / "t.jsonl").episodes
    assert trace.cut == "left" and trace.task.task_id == task_id


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "70000"], "--port must be 0 to 65535, got 70000"),
        (["--task-id", "nothing"], "no task 'nothing'"),
        (["--recipe", "NOTHING"], "unknown recipe 'NOTHING'"),
        (["--tasks", "t.jsonl"], "the file is empty"),
        (["--traces", "no/t.jsonl"], "Its folder does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, said):
    from videogym.cli import main

    monkeypatch.chdir(tmp_path)
    Path("v.mp4").touch()
    row = dict(task_id="1", video="v.mp4", question="?", kind="open", answer="a")
    Path("t.jsonl").write_text(json.dumps(row))
    assert main(["play", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("videogym play: error: ") and said in error and error.count("\n") == 1


def test_a_task_that_is_asked_for_must_have_its_video(tmp_path):
    kinds = dict(kind="open", answer="a")
    env = VideoQAEnv([TASK, Task("gone", str(tmp_path / "gone.mp4"), "?", **kinds)])
    with pytest.raises(VideoError, match="gone"):
        Game(env, "gone")
    assert Game(env).view()["position"] == [1, 2]
