"""Checkpoints know what they were trained under: loaded and evaluated with nothing repeated."""

# ruff: noqa: D103

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import SMALL, Table

from agents import (
    evaluate,
    train_grpo,
    train_grpo_mllm,
    train_ppo,
    train_ppo_mllm,
    train_rft,
    train_sft,
)
from agents.compact.run import make_compact
from agents.demonstrations.evidence import Demonstrator
from agents.models.qwen_vl import QwenVL
from agents.policies import ActingConfig, LoadedPolicy, Speaking, load_policy
from agents.training.archive import UnreadableCheckpoint, read_metadata, write_archive
from agents.training.provenance import TRAINED_FILE, model_card, read_provenance, recipe_of
from agents.vlm.command import command_line
from agents.vlm.evaluation import greedy
from agents.vlm.policy import first_model, make_actor, make_model
from agents.vlm.records import write_records
from agents.vlm.rollouts import demonstrate, make_chat_env, play_tasks
from videogym import FrameStore
from videogym.evaluate import evaluate as play
from videogym.grammars import get_grammar
from videogym.video import VideoError

TASKS = "procedural:brief_event?level=0&duration_s=60&fps=4&size=64x48&count=6"
WORDS = 'system = "Stand-in."\nquestion = "{frames}{question}\\n{options}\\n{path}"\n'


def command(monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    monkeypatch.setattr("sys.argv", ["agents.evaluate", *map(str, options)])
    evaluate.main()


@pytest.fixture(scope="module")
def language_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SFT for three steps, with a window and a prompt file that is gone afterwards."""
    folder = tmp_path_factory.mktemp("sft")
    words = folder / "words.toml"
    words.write_text(WORDS, encoding="utf-8")
    few = {"eval_episodes": 3, "demonstrated_tasks": 2, "groups": 1, "max_new_tokens": 5, "window": 2}
    options = {"tasks": f"{TASKS}&split=train", "eval_tasks": f"{TASKS}&split=val", "iterations": 3}
    more = {"eval_every": 1, "keep_checkpoints": 2, "checkpoint_every": 1, "prompt_file": words}
    named = [f"--{k.replace('_', '-')}={v}" for k, v in {**few, **options, **more}.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["agents.train_sft", *named, "--keep-best", "--out", str(folder / "run")])
        command_line("", train_sft.Config, train_sft.train, folder / "run")
    words.unlink()
    return folder / "run"


COMPACT: dict[str, tuple[Any, dict[str, Any]]] = {
    "ppo": (train_ppo, {}),
    "grpo": (train_grpo, {"group_size": 4}),
}


@pytest.fixture(scope="module", params=COMPACT)
def compact_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our compact policy, trained for two iterations."""
    module, more = COMPACT[request.param]
    out = tmp_path_factory.mktemp("compact") / "run"
    config = module.Config.of(**{**SMALL, "keep_best": True, "eval_every": 1, **more})
    module.train(config, make_compact(config), out)
    return out


def last(run: Path, curve: str) -> float:
    """The last point of a curve, as it was logged."""
    return float((run / "log/scalars" / f"{curve}.csv").read_text().splitlines()[-1].split(",")[1])


@pytest.mark.parametrize("part", ["model", ""])
def test_a_language_model_is_evaluated_with_nothing_repeated(
    part: str,
    language_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Tasks, recipe, prompt, window and lengths are the run's: so are the figures it logged last."""
    command(monkeypatch, "--checkpoint", language_run / part)
    said = capsys.readouterr()
    trained = read_provenance(language_run)
    assert trained is not None
    assert f"3 episodes of {trained['recipe']['identity']}" in said.out
    assert "system: no published text known here" in said.err and "trained under" not in said.err
    found = json.loads((language_run / "evaluation" / "metrics.json").read_text())
    text = json.dumps(found)
    for name in ("accuracy", "reward", "turns", "tokens"):
        assert trained["evaluated"][f"eval_{name}"] == pytest.approx(last(language_run, f"eval_{name}"))
        assert str(name) in text
    policy = load_policy(language_run / part)
    report = play(policy, policy.make_env(), episodes=3)
    assert report.accuracy is not None
    assert report.accuracy.mean == pytest.approx(trained["evaluated"]["eval_accuracy"])
    assert report.turns.mean == pytest.approx(trained["evaluated"]["eval_turns"])
    assert report.reward.mean == pytest.approx(trained["evaluated"]["eval_reward"])


LANGUAGE = {  # loops that play, and what each needs beside the common options
    "grpo": (train_grpo_mllm, ["--group-size=2", "--window=1", "--temperature=0.7"]),
    "ppo": (train_ppo_mllm, ["--group-size=1", "--recipe=VIDEO_MTR_TINY", "--critic-model=copy"]),
}


@pytest.fixture(scope="module")
def played_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An iteration of each loop of a language model that plays, and of RFT on what SFT's model played."""
    folder = tmp_path_factory.mktemp("played")
    tasks = [f"--tasks={TASKS}&split=train", f"--eval-tasks={TASKS}&split=val", "--eval-episodes=3"]
    few = [*tasks, "--iterations=1", "--groups=1", "--max-new-tokens=6"]
    ran = {}
    for name, (module, options) in LANGUAGE.items():
        ran[name] = folder / name
        train(module, *few, *options, "--out", ran[name])
    config = train_rft.Config.of(tasks=f"{TASKS}&split=train", checkpoint=str(ran["grpo"] / "model"))
    actor = make_actor(config, make_model(config, FrameStore()))
    env = make_chat_env(config, actor.model, config.tasks)
    script = Demonstrator(get_grammar(config.rules.grammar), seed=0, look_again=True)
    names = [task.task_id for task in env.env.tasks[:2]]
    shown = [replace(record, kind="rollout") for record in demonstrate(env, script, names)]
    write_records(folder / "rollouts.jsonl", shown)
    ran["rft"] = folder / "rft"
    from_grpo = [f"--checkpoint={ran['grpo'] / 'model'}", f"--rollouts={folder / 'rollouts.jsonl'}"]
    from_grpo += ["--min-overlap=0.001"]
    train(train_rft, *few, *from_grpo, "--out", ran["rft"])
    return ran


def train(module: Any, *options: object) -> None:
    """The command of a loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train", *map(str, options)])
        command_line("", module.Config, module.train, Path("runs"))


@pytest.mark.parametrize("name", ["grpo", "ppo", "rft"])
def test_every_loop_of_a_language_model_is_evaluated_as_it_evaluated_itself(
    name: str, played_runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command that names the folder alone; every figure that the run logged last comes out."""
    command(monkeypatch, "--checkpoint", played_runs[name])
    found = json.loads((played_runs[name] / "evaluation" / "metrics.json").read_text())["metrics"]
    logged = read_provenance(played_runs[name])["evaluated"]  # type: ignore[index]
    assert {"eval_accuracy", "eval_reward", "eval_turns", "eval_tokens"} <= logged.keys()
    for curve, value in logged.items():
        assert value == pytest.approx(last(played_runs[name], curve))
        assert found[curve.removeprefix("eval_")]["mean"] == pytest.approx(value), curve


# --- a language model that plays one episode at a time ------------------------------------------


@pytest.mark.parametrize("turn", [0, 1])
def test_frames_that_break_are_the_videos_fault(
    turn: int, language_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the question or, read again, after a turn without frames: no wrong answer of the policy's."""
    policy = load_policy(language_run)
    env = policy.make_env()
    inner: Any = env.unwrapped
    gone, store = inner.tasks[0].video, policy._act.actor.model.store
    frames = store.frames
    monkeypatch.setattr(policy._act.actor.model, "_kept_features", 0)  # as in a long run: read anew

    def breaking(source: str, *args: Any, **options: Any) -> Any:
        if source == gone and len(inner.state.turns) >= turn:
            raise VideoError(f"{source}: its packets are gone")
        return frames(source, *args, **options)

    monkeypatch.setattr(store, "frames", breaking)
    report = play(policy, env, episodes=3)
    assert len(report.episodes) == 2 and report.faults == turn
    assert all(told.endswith("its packets are gone") for told in report.bad_videos.values())
    assert len(report.bad_videos) == 1 - turn


def with_context(policy: LoadedPolicy, tokens: int) -> LoadedPolicy:
    config = policy.config.with_options(max_context=tokens)
    assert isinstance(config, ActingConfig)
    model = policy._act.actor.model
    return LoadedPolicy(Speaking(config, make_actor(config, model)), config, policy.trained)


def test_a_full_context_ends_what_a_policy_says(language_run: Path) -> None:
    """Where the loops cut an episode, nothing more is said in it: it is not answered, and not right."""
    roomy = load_policy(language_run)
    tasks = roomy.trained["config"]["eval_tasks"]
    model = roomy._act.actor.model
    wide = make_chat_env(roomy.config, model, tasks)  # type: ignore[arg-type]
    ids = [task.task_id for task in wide.env.tasks[:3]]
    longest = max(wide.chat.length(wide.open_task(one)) for one in ids)
    policy = with_context(roomy, longest + 7)  # for an output of five tokens, and no reply
    env = make_chat_env(policy.config, model, tasks)  # type: ignore[arg-type]
    cut = list(play_tasks(env, greedy(policy._act.actor), ids))
    assert {record.abort_reason for record in cut} == {"context"}
    report = play(policy, policy.make_env(), episodes=3)
    assert report.accuracy.mean == 0 and not report.bad_videos and not report.faults
    assert not any(episode.answered for episode in report.episodes)
    with pytest.raises(ValueError, match=r"3 bad videos.* leaves no room in max_context=40;"):
        play(with_context(roomy, 40), policy.make_env(), episodes=3)


def test_what_is_named_wins(
    language_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "e.yaml"
    config.write_text(f"episodes: 1\nout: {tmp_path / 'x'}\n", encoding="utf-8")
    options = ("--checkpoint", language_run / "model", "--recipe", "VIDEO_MTR_TINY", "--config", config)
    words = tmp_path / "words.toml"
    words.write_text('system = "Another."', encoding="utf-8")
    command(monkeypatch, *options, "--prompt-file", words)
    assert "1 episodes of VIDEO_MTR_TINY@" in capsys.readouterr().out
    assert (tmp_path / "x" / "traces.jsonl").exists()


def test_archives_of_a_language_model_are_policies_too(language_run: Path) -> None:
    """The best one and the newest two; the newest has the weights of ``model``."""
    assert sorted(path.name for path in (language_run / "checkpoints").iterdir()) == ["000002", "000003"]
    assert read_metadata(language_run / "best")["iteration"] in (1, 2, 3)
    newest, model = (load_policy(language_run / name) for name in ("checkpoints/000003", "model"))
    states: list[Any] = [policy._act.actor.model.state_dict() for policy in (newest, model)]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


@pytest.mark.parametrize("name", ["checkpoint", "checkpoints/000003", "best"])
def test_an_archive_finds_the_model_it_was_trained_from_where_it_lies(
    name: str, language_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved with its run; the folder where that was is no matter."""
    kept = tmp_path / "kept"
    shutil.copytree(language_run, kept, ignore=shutil.ignore_patterns("model"))
    asked: list[str] = []
    real = QwenVL.from_pretrained
    monkeypatch.setattr(
        QwenVL, "from_pretrained", lambda one, *rest: (asked.append(one), real(one, *rest))[1]
    )
    states = [load_policy(one / name)._act.actor.model.state_dict() for one in (kept, language_run)]
    assert asked == [str(kept / "tiny"), str(language_run / "tiny")]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize(
    ("stored", "told", "lies", "found"),
    [
        ("runs/a/tiny", "{out}/tiny", "new/b/tiny", "new/b/tiny"),  # below its run, which was renamed
        ("runs/sft/model", "runs/sft/model", "new/runs/sft/model", "new/runs/sft/model"),  # beside it
        ("/gone/sft/model", "/gone/sft/model", "new/gone/sft/model", None),
        ("runs/sft/model", "runs/sft/model", "old/sft/model", None),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct", "x", "Qwen/Qwen2.5-VL-3B-Instruct"),
    ],
)
def test_a_model_is_looked_for_beside_the_archive(
    stored: str, told: str, lies: str, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path was given from where the run was started, which is seldom where an archive is read."""
    archive = tmp_path / "new" / ("b" if "out" in told else "runs/grpo") / "checkpoint"
    write_archive(archive, {}, {"config": {"checkpoint": told}})
    (tmp_path / lies).mkdir(parents=True)
    (tmp_path / lies / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for path in (archive, archive.relative_to(tmp_path)):
        if found is None:
            with pytest.raises(UnreadableCheckpoint, match=f"^{path} .* model {stored}, .*folder 'model'"):
                first_model(path, stored)
        else:
            assert first_model(path, stored) == (found if "Qwen" in found else str(tmp_path / found))


def test_a_model_folder_says_all_of_itself(language_run: Path) -> None:
    card = (language_run / "model" / "README.md").read_text(encoding="utf-8")
    trained = read_provenance(language_run / "model")
    assert trained is not None and card == model_card(trained)
    assert recipe_of(trained).prompt is not None
    assert "at most 3 held-out tasks" in card, "there may be fewer"
    assert card.startswith("---\nlibrary_name: transformers\n") and "base_model" not in card
    for name in ("identity", "name"):
        assert trained["recipe"][name] in card
    assert trained["config"]["window"] == 2 and trained["pixels"]["max"] == 56 * 56
    assert (language_run / "model" / "prompt.toml").exists()


def test_a_compact_policy_is_evaluated_with_nothing_repeated(
    compact_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the folder, its checkpoint or the best one: the figures that were logged."""
    command(monkeypatch, "--checkpoint", compact_run)
    said = capsys.readouterr().out
    trained = read_provenance(compact_run)
    assert trained is not None and "accuracy" in said
    for place in ("", "checkpoint"):
        policy = load_policy(compact_run / place)
        report = play(policy, policy.make_env(), episodes=trained["config"]["eval_episodes"])
        assert report.accuracy is not None
        assert report.accuracy.mean == pytest.approx(last(compact_run, "eval_accuracy"))
        assert report.reward.mean == pytest.approx(last(compact_run, "eval_reward"))
        assert "\n".join(str(report).splitlines()[:4]) in said, "the command prints the report"
    assert json.loads((compact_run / "evaluation" / "result.json").read_text())


def test_options_of_an_evaluation_hold_for_a_compact_policy_too(
    compact_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another judge is another recipe, and videos may lie elsewhere by now."""
    named = ("--checkpoint", compact_run, "--episodes", "1", "--out", tmp_path)
    command(monkeypatch, *named, "--judge", "rules")
    identity = load_policy(compact_run, judge="rules").config.rules.identity
    assert f"1 episodes of {identity}" in capsys.readouterr().out
    assert identity != load_policy(compact_run).config.rules.identity
    with pytest.raises(SystemExit):
        command(monkeypatch, *named, "--video-root", tmp_path / "gone")
    assert "video_root must be a folder, got" in capsys.readouterr().err.splitlines()[-1]


def test_the_best_stays_the_best(tmp_path: Path) -> None:
    """Scores 0.2, 0.6, 0.4 and, resumed, 0.5: the second stays; equal scores keep the earlier one."""
    scores = iter([0.2, 0.6, 0.4, 0.5, 0.6])

    def found() -> dict[str, float]:
        return {"eval_accuracy": next(scores), "eval_reward": 9.0}

    def run(iterations: int) -> None:
        usual = {**SMALL, "iterations": iterations, "eval_every": 1, "keep_best": True}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("agents.train_ppo.Evaluator", lambda *_: found)
            train_ppo.train(train_ppo.Config.of(**usual), Table(), tmp_path)

    run(3)
    assert read_metadata(tmp_path / "best")["iteration"] == 2
    run(5)
    assert read_metadata(tmp_path / "best")["iteration"] == 2
    assert read_metadata(tmp_path / "checkpoint")["iteration"] == 5
    assert not (tmp_path / "checkpoints").exists()


def test_a_policy_of_ones_own_is_given(tmp_path: Path) -> None:
    config = train_ppo.Config.of(**SMALL)
    trained = Table()
    train_ppo.train(config, trained, tmp_path)
    with pytest.raises(UnreadableCheckpoint, match="is of a policy of your own"):
        load_policy(tmp_path)
    loaded = load_policy(tmp_path, policy := Table())
    assert torch.equal(policy.logits, trained.logits) and loaded.config.rules == config.rules


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "is of version 2, this code reads 1"),
        ({"config": None}, "config is None"),
        ({"recipe": {"name": "MINE", "identity": "MINE@0"}}, "trained under the recipe MINE@0: unknown"),
        (
            {"recipe": {"name": "DEFAULT", "identity": "DEFAULT@0"}},
            "trained under the recipe DEFAULT@0",
        ),
        ("{", "does not say what was trained"),
    ],
)
def test_what_cannot_be_believed_is_one_line(
    change: Any,
    said: str,
    language_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained = json.loads((language_run / "model" / TRAINED_FILE).read_text(encoding="utf-8"))
    text = change if isinstance(change, str) else json.dumps({**trained, **change})
    (tmp_path / TRAINED_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableCheckpoint, match=said):
        load_policy(tmp_path)
    if "recipe" in change:
        return  # the command may be told another
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, "--checkpoint", tmp_path)
    assert ended.value.code == 2 and said in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_knows_nothing_has_to_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnreadableCheckpoint, match="does not say what it was trained under"):
        load_policy(tmp_path)
    for options, said in ((("--checkpoint", tmp_path), "--out"), ((), "--out")):
        with pytest.raises(SystemExit) as ended:
            command(monkeypatch, *options)
        assert ended.value.code == 2 and said in capsys.readouterr().err
