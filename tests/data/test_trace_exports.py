"""What is exported is read by others as it was made: tasks, LongVT's rows, traces, chats; and it trains."""

# ruff: noqa: D103

import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripted_endpoint import command

from videogym import VideoQAEnv
from videogym.cli import main
from videogym.data import WorkFolder, kept_tasks, kept_traces
from videogym.datasets import check_videos, load_tasks, read_longvt_traces
from videogym.tool_episode import ToolEpisode
from videogym.traces import RecordTraces, read_traces
from videogym.traces.replay import recipe_of
from videogym.video import VideoChanged

sys.path.insert(0, str(Path(__file__).parents[1] / "agents"))


def exported(worked: Path, form: str, out: Path) -> Path:
    assert main(["data", "export", "--work", str(worked), "--format", form, "--out", str(out)]) == 0
    return out


def test_a_task_file_holds_the_tasks_and_finds_their_videos(
    worked: Path, footage: Path, tmp_path: Path
) -> None:
    tasks = load_tasks(str(exported(worked, "tasks", tmp_path / "tasks.jsonl")))
    with WorkFolder(worked) as work:
        assert list(tasks) == kept_tasks(work)
    assert not check_videos(tasks, footage).problems


def test_its_evidence_is_looked_at_and_reported(
    worked: Path, footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a task on a contact sheet, and of every trace on the timeline of the report."""
    tasks, sheet = exported(worked, "tasks", tmp_path / "tasks.jsonl"), tmp_path / "sheet.png"
    task = load_tasks(str(tasks))[1]
    source = ("--tasks", str(tasks), "--task-id", task.task_id, "--video-root", str(footage))
    assert main(["look", *source, "--out", str(sheet)]) == 0
    (segment,), told = task.evidence or (), capsys.readouterr().out
    assert f"answer: {task.answer}\n" in told and task.question in told
    assert f"evidence from {segment.start_s:.3f} to {segment.end_s:.3f} s" in told
    with Image.open(sheet) as image:
        edges = (np.asarray(image.convert("RGB")) == (46, 158, 91)).all(axis=2)
    # 24 frames are spread, and about four seconds shown at two a second; an edge is 3 pixels wide.
    around = 2 * 3 * (240 + 6) + 2 * 3 * 135
    assert round(edges.sum() / around) == round(2 * segment.length_s)
    traces, page = exported(worked, "traces", tmp_path / "traces.jsonl"), tmp_path / "report.html"
    assert main(["report", str(traces), "--video-root", str(footage), "--out", str(page)]) == 0
    written = page.read_text()
    for trace in read_traces(traces).episodes:
        (segment,) = trace.task.evidence or ()
        assert (
            f"evidence: {segment.start_s:.2f}".rstrip("0").rstrip(".") in written
            and trace.task.question in written
        )
    assert "data:image/jpeg" in written  # the files were found


@pytest.mark.parametrize("name", ["rl.parquet", "rl.jsonl"])
def test_rows_for_reinforcement_learning_are_those_of_longvt(
    worked: Path, tmp_path: Path, name: str
) -> None:
    out = exported(worked, "longvt-rl", tmp_path / name)
    with WorkFolder(worked) as work:
        ours = kept_tasks(work)
    theirs = load_tasks(f"longvt-rl:{out}")
    assert [(t.question, t.answer, t.evidence) for t in theirs] == [
        (t.question, t.answer, t.evidence) for t in ours
    ]
    assert {Path(task.video).name for task in theirs} == {"film-1.mp4", "film-2.mp4", "film-3.mp4"}


@pytest.mark.parametrize("name", ["sft.parquet", "sft.jsonl"])
def test_rows_for_fine_tuning_say_what_the_teacher_said_and_show_what_it_saw(
    worked: Path, tmp_path: Path, name: str
) -> None:
    out = exported(worked, "longvt-sft", tmp_path / name)
    with WorkFolder(worked) as work:
        traces = kept_traces(work)
    read = read_longvt_traces(out)
    assert [one.outputs for one in read] == [tuple(t.turn.text for t in trace.turns) for trace in traces]
    assert [(one.task.question, one.task.answer) for one in read] == [
        (trace.task.question, trace.answer) for trace in traces
    ]
    pictures = sorted((tmp_path / "sft_frames").glob("*.png"))
    clips = [(trace.video.fingerprint, clip) for trace in traces for clip in trace.clips[1:]]
    assert len(pictures) == len({(name, time) for name, clip in clips for time in clip.times_s})
    sizes = set()
    for picture in pictures:
        with Image.open(picture) as image:
            sizes.add(image.size)
    assert sizes == {(168, 84)}  # of 160 x 90 pixels, in multiples of 28


def test_rows_are_read_where_folders_were_named_by_a_parent(
    worked: Path, footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path of a row holds no "..", which readers refuse."""
    work, here = tmp_path / "work", tmp_path / "here"
    shutil.copytree(worked, work)
    here.mkdir()
    monkeypatch.chdir(here)
    videos = Path(os.path.relpath(footage))
    assert videos.parts[0] == ".." and main(command("scenes", work, videos, "")) == 0
    tasks = load_tasks(f"longvt-rl:{exported(work, 'longvt-rl', Path('../rl.jsonl'))}")
    assert {Path(task.video).parent for task in tasks} == {footage}
    out = exported(work, "longvt-sft", Path("../sft.jsonl"))
    assert len(read_longvt_traces(out)) == 5 and ".." not in out.read_text().replace("...", "")


def test_parquet_has_the_published_columns(worked: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rl = parquet.read_table(exported(worked, "longvt-rl", tmp_path / "rl.parquet"))
    assert {"data_source", "prompt", "videos", "reward_model", "extra_info"} <= set(rl.column_names)
    row = rl.to_pylist()[0]
    assert row["videos"][0]["video"].startswith("file:///") and row["reward_model"]["style"] == "model"
    extra = {"question", "answer", "video_segment", "need_tools_kwargs", "tools_kwargs", "index", "split"}
    assert set(row["extra_info"]) == extra and "<video>" in row["prompt"][0]["content"]
    sft = parquet.read_table(exported(worked, "longvt-sft", tmp_path / "sft.parquet")).to_pylist()
    roles = [message["role"] for message in sft[0]["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    kinds = {part["type"] for message in sft[0]["messages"] for part in message["content"]}
    assert kinds == {"text", "video_url", "image_url"}


@pytest.mark.parametrize("form", ["longvt-rl", "longvt-sft"])
def test_parquet_is_read_by_datasets(
    worked: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    if not hasattr(datasets, "load_dataset"):  # the folder of tests by that name is found in its place
        pytest.skip("needs Hugging Face's datasets")
    out = exported(worked, form, tmp_path / "rows.parquet")
    read = datasets.load_dataset(
        "parquet", data_files=str(out), split="train", cache_dir=str(tmp_path / "hf")
    )
    assert len(read) == {"longvt-rl": 11, "longvt-sft": 5}[form]


def test_traces_are_those_that_were_played(worked: Path, tmp_path: Path) -> None:
    read = read_traces(exported(worked, "traces", tmp_path / "traces.jsonl"))
    with WorkFolder(worked) as work:
        assert list(read.episodes) == kept_traces(work) and read.torn == 0


def test_a_video_that_has_changed_is_in_no_export(
    worked: Path, footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work, videos = tmp_path / "work", tmp_path / "videos"
    shutil.copytree(worked, work)
    shutil.copytree(footage, videos)
    (work / "video_root").write_text(str(videos))
    with (videos / "film-2.mp4").open("ab") as file:
        file.write(b"more")
    for form in ("tasks", "longvt-rl", "traces", "longvt-sft"):
        line = [
            "data",
            "export",
            "--work",
            str(work),
            "--format",
            form,
            "--out",
            str(tmp_path / "out.jsonl"),
        ]
        assert main(line) == 2
        assert "film-2.mp4: changed since its scenes were found" in capsys.readouterr().err
        assert not (tmp_path / "out.jsonl").exists()


def test_a_task_of_a_video_that_has_changed_is_played_by_nobody(
    worked: Path, footage: Path, tmp_path: Path
) -> None:
    """Another film lies under its name, as long and as wide."""
    videos = tmp_path / "videos"
    shutil.copytree(footage, videos)
    shutil.copy(footage / "film-2.mp4", videos / "film-1.mp4")
    tasks = load_tasks(str(exported(worked, "tasks", tmp_path / "tasks.jsonl")))
    (first,) = [task for task in tasks if task.video == "film-1.mp4"][:1]
    with VideoQAEnv(tasks, video_root=str(videos)) as env:
        with pytest.raises(VideoChanged, match=r"film-1\.mp4: changed since task 'film-1-"):
            env.reset(options={"task_id": first.task_id})
    check = check_videos(tasks, videos)
    assert {problem.video for problem in check.problems} == {"film-1.mp4"}
    assert {task.video for task in check.tasks} == {"film-2.mp4", "film-3.mp4"}


# --- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["trl", "llama_factory", "ms_swift"])
def test_chats_of_traces_have_their_frames_and_no_wrong_look_to_imitate(
    worked: Path, footage: Path, tmp_path: Path, form: str
) -> None:
    pytest.importorskip("transformers")
    from agents.tools.export import export_traces
    from videogym import FrameStore

    traces = read_traces(exported(worked, "traces", tmp_path / "traces.jsonl")).episodes[:1]
    store = FrameStore(video_root=str(footage))
    count, left = export_traces(traces, store, tmp_path / "chats", form)  # type: ignore[arg-type]
    if form == "llama_factory":
        assert (count, left) == (0, 1)  # all hold a look that missed, which it cannot be told
        return
    assert (count, left) == (1, 0)
    rows = [json.loads(line) for line in (tmp_path / "chats" / "data.jsonl").read_text().splitlines()]
    key = {"trl": "train", "ms_swift": "loss"}[form]
    for row, trace in zip(rows, traces, strict=True):
        said = [message for message in row["messages"] if message["role"] == "assistant"]
        assert [message[key] for message in said] == [False, True, True]
        assert len(row["images"]) == trace.frames_shown
    with Image.open(tmp_path / "chats" / rows[0]["images"][70]) as image:
        seen = np.asarray(image)
    clip = traces[0].turns[0].turn.clips[0]
    rules = recipe_of(traces[0]).rules
    assert rules.max_pixels >= seen.shape[0] * seen.shape[1] and len(clip.times_s) > 6
    true = store.frames(traces[0].task.video, [clip.times_s[6]], size=seen.shape[1::-1]).pixels[0]
    assert np.array_equal(seen, true)


def test_chats_of_a_video_that_was_replaced_are_refused(
    worked: Path, footage: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    from agents.tools.export import export_traces
    from videogym import FrameStore

    traces = read_traces(exported(worked, "traces", tmp_path / "traces.jsonl")).episodes[:1]
    videos = tmp_path / "videos"
    shutil.copytree(footage, videos)
    played = traces[0].task.video
    (other,) = [path for path in sorted(footage.glob("*.mp4")) if path.name != Path(played).name][:1]
    shutil.copy(other, videos / Path(played).name)
    with pytest.raises(VideoChanged, match="is not the video that was played"):
        export_traces(traces, FrameStore(video_root=str(videos)), tmp_path / "chats", "trl")
    assert not (tmp_path / "chats" / "data.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "own"),
    [("EVA/code", False), ("VIDEO_ZOOMER/paper", False), ("LONGVT/paper", True), ("DEFAULT", True)],
)
def test_chats_are_of_episodes_that_were_played_in_the_recipes_grammar(
    tmp_path: Path, name: str, own: bool
) -> None:
    """Tools play recipes whose grammar has none in another one, of which their prompt does not speak."""
    pytest.importorskip("transformers")
    from agents.tools.export import trace_conversation

    tasks = "procedural:brief_event?duration_s=60&count=1&size=64x36"
    episode = ToolEpisode(RecordTraces(VideoQAEnv(tasks, name), tmp_path / "t.jsonl"))
    episode.begin(seed=0)
    (tool,) = [one["function"] for one in episode.tools if one["function"]["name"] == "answer"]
    (argument,) = tool["parameters"]["properties"]
    episode.call("answer", {argument: episode.state.task.answer})
    episode.close()
    (trace,) = read_traces(tmp_path / "t.jsonl").episodes
    assert trace.correct
    if own:
        assert [said.role for said in trace_conversation(trace)] == ["system", "user", "assistant"]
    else:
        with pytest.raises(ValueError, match=f"was not played in .*, the grammar of {name}"):
            trace_conversation(trace)


def test_traces_train_by_supervised_fine_tuning_as_it_is(
    worked: Path, footage: Path, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    """Two iterations of a tiny model on the conversations; their looks and answers all go through."""
    from small_chat import load, make_actor  # type: ignore[import-not-found]

    from agents.train_sft import Config, train
    from agents.vlm.replay import replay
    from agents.vlm.rollouts import make_chat_env

    out = exported(worked, "longvt-sft", tmp_path / "sft.parquet")
    source = f"longvt-sft:{out}"
    config = Config.of(
        recipe="LONGVT_TINY", tasks=source, script="traces", iterations=2, groups=1, eval_every=1000
    )
    actor = make_actor(load(checkpoints["qwen2_5_vl"]))
    env, counts = make_chat_env(config, actor.model, source), Counter[str]()
    examples = list(replay(env, read_longvt_traces(out), counts))
    assert counts == {"kept": 5}
    assert all(record.ending == "answered" and len(record.played) == 3 for record in examples)
    before = [weight.detach().clone() for weight in actor.model.parameters()]
    train(config, actor, tmp_path / "run")
    after = list(actor.model.parameters())
    assert any(not one.equal(other) for one, other in zip(before, after, strict=True))
