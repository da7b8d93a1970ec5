"""A trained checkpoint is pushed as a repository, here to a stand-in that keeps what it is sent."""

# ruff: noqa: D102, D103

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from agents import train_sft
from agents.vlm.command import command_line
from agents.vlm.hub import PushError, push_to_hub

NAME = "somebody/looks"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of LFS, in the library


class Hub(ThreadingHTTPServer):
    """What a hub does with a push: makes repositories, takes large files, then commits."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.made: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.objects: dict[str, bytes] = {}  # large files by their sum
        self.files: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.refuses = ""  # a path that is answered by 403

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, answer: Any, status: int = 200) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def do_PUT(self) -> None:
        content = self._body() if "Content-Length" in self.headers else self._chunks()
        self.server.objects[self.path.rpartition("/")[2]] = content
        self._answer({})

    def _chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def do_POST(self) -> None:
        hub = self.server
        body = self._body() if "Content-Length" in self.headers else self._chunks()
        hub.tokens.add(self.headers["Authorization"])
        path = self.path.partition("?")[0]
        if hub.refuses and hub.refuses in path:
            self._answer({"error": "you may not"}, 403)
        elif path == "/api/repos/create":
            hub.made.append(json.loads(body))
            self._answer({"url": f"{hub.url}/{NAME}"})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            asked = json.loads(body)["files"]
            kinds = {
                one["path"]: "lfs" if one["path"].endswith(".safetensors") else "regular" for one in asked
            }
            self._answer(
                {"files": [{"path": p, "uploadMode": k, "shouldIgnore": False} for p, k in kinds.items()]}
            )
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{hub.url}/put/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            for row in map(json.loads, body.splitlines()):
                value = row["value"]
                if row["key"] == "header":
                    hub.commits.append(value["summary"])
                elif row["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                else:
                    hub.files[value["path"]] = hub.objects[value["oid"]]
            answer = {"commitUrl": f"{hub.url}/{NAME}/commit/{'0' * 40}", "commitOid": "0" * 40}
            self._answer({**answer, "success": True})
        else:
            self._answer({"error": path}, 404)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """One that listens, with a token for it."""
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HF_HUB_DISABLE_XET", True
    )  # a protocol of its own, which a hub has beside
    monkeypatch.setenv("HF_TOKEN", "hf_ours")
    yield server
    server.shutdown()
    server.server_close()


SMALL = (
    *("--recipe", "LONGVT_TINY", "--iterations", "1", "--groups", "1", "--demonstrated-tasks", "1"),
    *("--per-task", "1", "--eval-episodes", "1", "--max-new-tokens", "4", "--push-to-hub", NAME),
)


def test_a_trained_checkpoint_is_pushed_whole(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every file of the model's folder, byte by byte, in a private repository; where it is is said."""
    monkeypatch.setattr("sys.argv", ["train_sft", *SMALL])
    command_line("", train_sft.Config, train_sft.train, tmp_path)
    (asked,) = hub.made
    assert (asked["organization"], asked["name"], asked["visibility"]) == (*NAME.split("/"), "private")
    model = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    assert hub.files == model and {"README.md", "model.safetensors", "videogym.json"} <= model.keys()
    assert list(hub.objects) == [hashlib.sha256(model["model.safetensors"]).hexdigest()]
    assert hub.tokens == {"Bearer hf_ours"}
    assert hub.commits == ["train_sft, 1 iterations"]
    assert f"It is at {hub.url}/{NAME}\n" in capsys.readouterr().out


@pytest.mark.parametrize("refuses", ["/api/repos/create", "/preupload/", "/commit/"])
def test_a_push_that_is_refused_costs_a_line(hub: Hub, tmp_path: Path, refuses: str) -> None:
    hub.refuses = refuses
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PushError, match=f"{tmp_path} could not be pushed to {NAME}: .*403") as caught:
        push_to_hub(tmp_path, NAME, "x")
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_out_of_reach_leaves_the_checkpoint_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1 and one line, after all has been saved."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_ours")
    monkeypatch.setattr("sys.argv", ["train_sft", *SMALL])
    with pytest.raises(SystemExit) as ended:
        command_line("", train_sft.Config, train_sft.train, tmp_path)
    assert str(ended.value.code).startswith(f"{tmp_path / 'model'} could not be pushed to {NAME}: ")
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert f"The checkpoint is {tmp_path / 'model'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("repo", "token", "told"),
    [("a/b/c", "hf_ours", "'a/b/c' names no repository"), (NAME, None, "pushing needs a token")],
)
def test_what_could_not_be_pushed_is_refused_before_training(
    repo: str,
    token: str | None,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("agents.vlm.hub.get_token", lambda: token)
    monkeypatch.setattr("sys.argv", ["train_sft", "--push-to-hub", repo])
    with pytest.raises(SystemExit) as ended:
        command_line("", train_sft.Config, train_sft.train, tmp_path / "out")
    last = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and "--push-to-hub: " in last and told in last
    assert not (tmp_path / "out").exists()
