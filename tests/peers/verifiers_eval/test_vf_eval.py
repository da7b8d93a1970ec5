"""verifiers' own ``vf-eval`` plays our tasks with a model that says what it is told to say.

The model is an endpoint of chat completions in this process; taskset, environment, harness, interception
and the file of results are verifiers' and ours, in a process of their own.
"""

# ruff: noqa: D102, D103

import base64
import io
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videogym import Answer, Crop, Task, TextActions, VideoError, VideoQAEnv, get_recipe
from videogym.datasets import write_tasks
from videogym.grammars import get_grammar
from videogym.judging import with_judge
from videogym.rewards import RewardError
from videogym.traces import RecordTraces, read_traces
from videogym.video.synthetic import encode

pytestmark = [pytest.mark.peers("verifiers"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

ENVIRONMENT = Path(__file__).parents[3] / "examples" / "peers"
# One question, whose evidence of 3 s is known.
TASKS = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=1&size=64x36"
LOOK = 0.5 * 57 / 60  # IoU 1, where the skim of 60 s had 3 / 60, at weight 0.5


class Endpoint(BaseHTTPRequestHandler):
    """Every rollout says the texts of a script, one a turn."""

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["content-length"])))
        rollout = self.headers["x-session-id"]
        with server.lock:
            script = server.scripts.setdefault(rollout, len(server.scripts))
            server.requests.setdefault(script, []).append(body["messages"])
        server.before_a_reply()
        said = server.texts[script][sum(message["role"] == "assistant" for message in body["messages"])]
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        sent = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    server.lock, server.scripts, server.requests = threading.Lock(), {}, {}
    server.before_a_reply = lambda: None
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def evaluate(endpoint, folder, rollouts, *options):
    """Run ``vf-eval``; the traces of its rollouts, by script."""
    run = subprocess.run(
        [
            *(sys.executable, "-c", "from verifiers.v1.cli.eval.main import main; main()"),
            *("videogym-verifiers", "-m", "scripted", "--client.api-key-var", "NO_KEY"),
            *("--client.base-url", f"http://127.0.0.1:{endpoint.server_port}/v1"),
            *("--env.taskset.tasks", TASKS, "-n", "1", "-r", str(rollouts), "--no-push", "--no-rich"),
            *("--output-dir", str(folder), "--run.name", "run", *options),
        ],
        env={**os.environ, "PYTHONPATH": str(ENVIRONMENT), "HOME": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr[-5000:]
    lines = (folder / "run" / "traces.jsonl").read_text().splitlines()
    return [trace for line in lines for trace in json.loads(line)["traces"]]


def written():
    """The task, its wrong answer, and what to write for a look at the evidence and for an answer."""
    env = VideoQAEnv(TASKS)
    env.reset(seed=0)
    task, grammar = env.tasks[0], get_grammar("native")
    wrong = next(letter for letter in task.letters if letter != task.answer)
    evidence = task.evidence[0]

    def write(action):
        return grammar.write(action, env.state)

    return (
        task,
        write(Crop(evidence.start_s, evidence.end_s)),
        write(Answer(task.answer)),
        write(Answer(wrong)),
    )


def test_rewards_metrics_and_frames_of_four_rollouts(endpoint, tmp_path):
    """Look and answer right; answer wrong; write nonsense and answer right; never answer."""
    _, look, right, wrong = written()
    endpoint.texts = [[look, right], [look, wrong], ["I do not know.", right], ["Hm."] * 6]
    traces = evaluate(
        endpoint, tmp_path, 4, "--env.taskset.traces", str(tmp_path / "played.jsonl"), "-c", "4"
    )
    assert all(trace["ok"] for trace in traces)
    paid = sorted(trace["rewards"]["episode"]["score"] for trace in traces)
    # By hand. What a look was paid is taken back where the answer is wrong.
    assert paid == pytest.approx(sorted([LOOK + 1.0, 0.0, 1.0, 0.0]))
    by_reward = {round(trace["rewards"]["episode"]["score"], 3): trace["metrics"] for trace in traces}
    best, second = by_reward[round(LOOK + 1, 3)], by_reward[1.0]
    assert (best["turns"], best["invalid_turns"], best["is_success"], best["answer"]) == (2, 0, 1, 1)
    assert (second["turns"], second["invalid_turns"], second["is_success"]) == (2, 1, 1)
    assert best["frames_shown"] == second["frames_shown"] + 6  # 3 s at 2 fps

    stored = read_traces(tmp_path / "played.jsonl").episodes
    assert sorted(trace.reward for trace in stored) == pytest.approx(paid)


def images(message):
    parts = message["content"] if isinstance(message["content"], list) else []
    for part in parts:
        if part["type"] == "image_url":
            data = part["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
            yield np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_the_model_is_shown_the_frames_it_asked_for(endpoint, tmp_path):
    """The conversation grows by what is new; its images are those of the times that stand before them."""
    task, look, right, _ = written()
    endpoint.texts = [[look, right]]
    evaluate(endpoint, tmp_path, 1)
    (first, second) = endpoint.requests[0]
    assert [message["role"] for message in first] == ["system", "user"]
    assert [message["role"] for message in second] == ["system", "user", "assistant", "user"]
    assert second[:2] == first and second[2]["content"] == look
    assert any(task.question in part.get("text", "") for part in first[1]["content"])
    assert len(list(images(first[1]))) == 32

    # The frames that a look at the evidence brings, played here.
    env = VideoQAEnv(TASKS)
    env.reset(seed=0)
    env.step(Crop(task.evidence[0].start_s, task.evidence[0].end_s))
    times_s = env.state.turns[-1].clips[0].times_s
    told = [
        float(part["text"].strip("[] s\n").split("[")[-1])
        for part in second[3]["content"]
        if part["type"] == "text" and part["text"].endswith(" s] ")
    ]
    assert told == pytest.approx(times_s, abs=0.006)
    shown = list(images(second[3]))
    size = shown[0].shape[1::-1]
    for pixels, true in zip(shown, env.store.frames(task.video, times_s, size=size).pixels, strict=True):
        assert np.abs(pixels.astype(int) - true).mean() < 8, "not the frame of that time"


def test_an_agent_that_is_cut_off_is_settled_without_an_answer(endpoint, tmp_path):
    """The look was paid when it was made; an episode that never answers gives that back."""
    _, look, right, _ = written()
    endpoint.texts = [[look, right]]
    (trace,) = evaluate(endpoint, tmp_path, 1, "--env.player.max-turns", "1")
    assert trace["rewards"]["episode"]["score"] == pytest.approx(0.0)
    assert trace["metrics"]["is_success"] == 0.0 and trace["metrics"]["turns"] == 6


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("recipe", "LONGTV", "unknown recipe 'LONGTV'"), ("tasks", "nothing.jsonl", "nothing.jsonl")],
)
def test_a_wrong_option_is_refused_before_anything_is_played(option, value, said):
    from videogym.verifiers import VideoTaskset, VideoTasksetConfig

    with pytest.raises((ValueError, OSError), match=said):
        VideoTaskset(VideoTasksetConfig(**{option: value}))


@pytest.mark.parametrize("observe", ["references", "pixels"])  # met by the agent, and in the step
def test_frames_that_cannot_be_shown_end_the_rollout_without_a_reward(observe, monkeypatch, tmp_path):
    from videogym.verifiers import _Episode

    task, look, _, _ = written()
    env = VideoQAEnv(TASKS, observe=observe)
    episode = _Episode(TextActions(RecordTraces(env, tmp_path / "played.jsonl")))
    episode.begin(task.task_id)

    def gone(*arguments, **options):
        raise VideoError("the file is gone")

    monkeypatch.setattr(env.store, "frames", gone)
    with pytest.raises(VideoError, match=f"task '{task.task_id}': the file is gone"):
        episode.play(look)
    episode.close()
    (stored,) = read_traces(tmp_path / "played.jsonl").episodes
    assert stored.turns[-1].turn.fault == "the file is gone" and stored.cut == "fault: the file is gone"


@pytest.mark.parametrize("verdict", [None, 1.0])
def test_an_episode_whose_judge_abstains_has_no_reward(verdict):
    from videogym.verifiers import _Episode

    task, _, right, _ = written()
    env = VideoQAEnv(TASKS, with_judge(get_recipe("DEFAULT"), lambda task, answer: verdict))
    episode = _Episode(TextActions(env))
    episode.begin(task.task_id)
    assert episode.play(right) == []
    if verdict is None:
        with pytest.raises(RewardError, match=f"task '{task.task_id}': the judge abstained"):
            episode.require_judged()
    else:
        episode.require_judged()


def test_a_rollout_whose_video_goes_is_an_error_of_verifiers_and_no_reward(endpoint, tmp_path):
    """The file is removed when the model has been asked, so its look finds no frames."""
    _, look, right, _ = written()
    video, tasks = tmp_path / "v.mp4", tmp_path / "tasks.jsonl"
    encode("synthetic:brief_event?level=0&duration_s=60&seed=1&size=64x36", video)
    write_tasks(tasks, [Task("t", "v.mp4", "Who?", "open", answer="Ann")])
    endpoint.texts = [[look, right]]
    endpoint.before_a_reply = lambda: video.unlink(missing_ok=True)
    source = ("--env.taskset.tasks", str(tasks), "--env.taskset.video-root", str(tmp_path))
    (trace,) = evaluate(endpoint, tmp_path, 1, *source)
    assert not trace["ok"] and "episode" not in trace["rewards"] and "is_success" not in trace["metrics"]
    (error,) = trace["errors"]
    assert "task 't'" in error["message"] and "v.mp4" in error["message"]


def test_a_rollout_that_is_cancelled_in_a_turn_is_stored_once(monkeypatch, tmp_path):
    """The turn goes on in its thread; closing the episode waits for it."""
    from videogym.verifiers import _Episode

    task, look, right, _ = written()
    inner = VideoQAEnv(TASKS)
    episode = _Episode(TextActions(RecordTraces(inner, tmp_path / "played.jsonl")))
    episode.begin(task.task_id)
    episode.play(look)
    playing, go_on, step = threading.Event(), threading.Event(), inner.step

    def slow(action):
        playing.set()
        assert go_on.wait(60)
        return step(action)

    monkeypatch.setattr(inner, "step", slow)
    turn = threading.Thread(target=episode.play, args=(right,))
    turn.start()
    assert playing.wait(60)
    closing = threading.Thread(target=episode.close)
    closing.start()
    closing.join(1)  # without waiting for the turn it would be done long before
    go_on.set()
    turn.join(60)
    closing.join(60)
    (stored,) = read_traces(tmp_path / "played.jsonl").episodes
    assert (stored.ending, stored.cut, len(stored.turns)) == ("answered", "", 2)
