"""TRL's GRPOTrainer plays our episodes through ``environment_factory`` and learns from what they pay.

The model has Qwen2.5-VL's architecture and random weights, so what it says is given: its generation is
replaced, and everything else (templates, reading of calls, tools, images, loss, step) is TRL's.
"""

# ruff: noqa: D103

from dataclasses import replace

import numpy as np
import pytest
from scripted_trl import TRAINING, Script, build_checkpoint, load_example, processor_of, say

from videogym import VideoQAEnv, get_recipe

pytestmark = [
    pytest.mark.peers("trl", "datasets", "torch"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

# One question, whose evidence of 3 s is known.
TASKS = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=1&size=64x36"
DEFAULT = get_recipe("DEFAULT")
RECIPE = replace(
    DEFAULT, name="small", rules=replace(DEFAULT.rules, skim_frames=6, clip_frames=4, max_pixels=28 * 56)
)


@pytest.fixture(scope="module")
def example():
    return load_example("trl_grpo")


@pytest.fixture(scope="module")
def checkpoint(example, tmp_path_factory):
    return build_checkpoint(tmp_path_factory.mktemp("tiny"), example.SYSTEM, example.VideoEpisode.crop)


def train_once(example, checkpoint, folder, rollouts):
    """One update on one question; the trainer, the script, and the weights before."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint)
    processor = processor_of(checkpoint)
    trainer = example.make_trainer(
        model,
        processor,
        TASKS,
        RECIPE,
        output_dir=str(folder),
        num_generations=len(rollouts),
        per_device_train_batch_size=len(rollouts),
        max_steps=1,
        **TRAINING,
    )
    script = Script(processor.tokenizer, rollouts)
    trainer.model.generate = script
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    torch.manual_seed(0)
    trainer.train()
    return trainer, script, before


LOOK = 0.5 * 57 / 60
"""What a look at just the evidence pays: IoU 1, where the skim of 60 s had 3 / 60, at weight 0.5."""


def evidence():
    task = VideoQAEnv(TASKS, RECIPE).tasks[0]
    return task, task.evidence[0].start_s, task.evidence[0].end_s


def rollouts():
    """Look and answer right; answer wrong; look elsewhere, badly, and answer right; say nothing of use."""
    task, start_s, end_s = evidence()
    wrong = next(letter for letter in task.letters if letter != task.answer)
    elsewhere = (start_s + 30) % 50
    return [
        [say("crop", start_s=start_s, end_s=end_s), say("answer", text=task.answer), "Done."],
        [say("answer", text=wrong), "Done."],
        [
            say("crop", start_s=9, end_s=3),
            say("crop", start_s=elsewhere, end_s=elsewhere + 2),
            say("answer", text=task.answer),
            "Done.",
        ],
        ["I do not know."],
    ]


def test_one_update_on_four_rollouts(example, checkpoint, tmp_path):
    trainer, script, before = train_once(example, checkpoint, tmp_path, rollouts())
    (log,) = [entry for entry in trainer.state.log_history if "reward" in entry]

    # By hand: a look at just the evidence, a right answer; a wrong one; a right one; none.
    due = np.array([LOOK + 1.0, 0.0, 1.0, 0.0])
    assert log["rewards/VideoEpisode/mean"] == pytest.approx(due.mean())
    assert log["reward_std"] == pytest.approx(due.std(ddof=1), rel=1e-3)
    assert trainer.model is not None and np.isfinite(log["loss"])

    # Tools: 2 calls of the first rollout, 1 of the second, 3 of the third; a refusal is no failure.
    assert log["tools/call_frequency"] == pytest.approx(6 / 4)
    assert log["tools/failure_frequency"] == 0.0

    # Four skims of 6 frames. Then the three that called: with 4 new frames, none, and none (refused).
    # Then the two that go on: 10, and 6 + 4. Then the third alone, which has answered.
    assert script.images == [24, 18 + 4, 10 + 10, 10]
    assert script.active == [] and not any(script.left)

    moved = [name for name, value in trainer.model.named_parameters() if not value.equal(before[name])]
    assert any("visual" in name for name in moved), "no gradient reached the frames"
    assert any("layers" in name for name in moved)


def test_rollouts_that_are_paid_alike_teach_nothing(example, checkpoint, tmp_path):
    """The advantage is relative to the group: what all four did is neither praised nor blamed."""
    task, start_s, end_s = evidence()
    same = [[say("crop", start_s=start_s, end_s=end_s), say("answer", text=task.answer), "Done."]] * 4
    trainer, _, before = train_once(example, checkpoint, tmp_path, same)
    (log,) = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert log["reward"] == pytest.approx(LOOK + 1.0) and log["frac_reward_zero_std"] == 1.0
    assert log["grad_norm"] == 0.0
    assert all(value.equal(before[name]) for name, value in trainer.model.named_parameters())


def test_an_environment_is_used_again_without_a_trace_of_the_last_episode(example):
    task, start_s, end_s = evidence()
    episode = example.VideoEpisode(TASKS, RECIPE)
    first = episode.reset(task_id=task.task_id, prompt=[])
    episode.crop(start_s, end_s)
    episode.answer(task.answer)
    assert episode.get_reward() == pytest.approx(LOOK + 1.0)
    again = episode.reset(task_id=task.task_id, prompt=[])
    assert [block["type"] for block in first] == [block["type"] for block in again]
    assert first[-1] == again[-1], "the limits that are told are not those of a new episode"
    assert episode.get_reward() == 0.0


def test_a_look_without_an_answer_is_settled(example):
    """The look was paid when it was made; an episode that never answers gives that back."""
    task, start_s, end_s = evidence()
    episode = example.VideoEpisode(TASKS, RECIPE)
    episode.reset(task_id=task.task_id)
    episode.crop(start_s, end_s, region=None)
    assert episode._episode.rewards == [pytest.approx(LOOK)]
    assert episode.get_reward() == pytest.approx(0.0)


def test_the_methods_have_the_schema_of_the_grammar(example):
    """What TRL tells the model of a tool says the same as our own grammar, in the arguments at least."""
    from transformers.utils import get_json_schema

    episode = example.VideoEpisode(TASKS, RECIPE)
    for schema in episode._episode.tools:
        function = schema["function"]
        told = get_json_schema(getattr(episode, function["name"]))["function"]
        assert list(told["parameters"]["properties"]) == list(function["parameters"]["properties"])
        assert told["parameters"]["required"] == function["parameters"]["required"]
        assert told["description"] == function["description"]
