"""TRL's GRPOTrainer learns from episodes that an OpenEnv server plays in a process of its own.

What the tiny model says is given, as in ``test_trl``; connection, sessions, frames over the wire, rewards,
loss and steps are those of OpenEnv, TRL and videogym.
"""

# ruff: noqa: D103

from pathlib import Path

import numpy as np
import pytest
from scripted_trl import TRAINING, Script, build_checkpoint, load_example, processor_of, say
from server_process import serving

pytestmark = [
    pytest.mark.peers("openenv", "trl", "datasets", "torch"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

HERE = Path(__file__).parent
STEPS = 3
LOOK = 0.5 * 57 / 60  # IoU 1, where the skim of 60 s had 3 / 60, at weight 0.5


@pytest.fixture(scope="module")
def example():
    return load_example("trl_openenv")


@pytest.fixture(scope="module")
def server():
    with serving(str(HERE / "small_server.py")) as server:
        yield server


class Rounds:
    """Stands for ``generate`` over several updates: a script for each."""

    def __init__(self, scripts):
        self.scripts = scripts

    def __call__(self, *arguments, **options):
        """What the script of this update generates."""
        script = next(script for script in self.scripts if script.active)
        return script(*arguments, **options)


def rollouts():
    """Look and answer right; answer wrong; look badly, then answer right; say nothing of use."""
    from small_server import RECIPE, TASKS

    from videogym import VideoQAEnv

    task = VideoQAEnv(TASKS, RECIPE).tasks[0]
    evidence = task.evidence[0]
    wrong = next(letter for letter in task.letters if letter != task.answer)
    return [
        [
            say("crop", start_s=evidence.start_s, end_s=evidence.end_s),
            say("answer", text=task.answer),
            "Done.",
        ],
        [say("answer", text=wrong), "Done."],
        [say("crop", start_s=9, end_s=3), say("answer", text=task.answer), "Done."],
        ["I do not know."],
    ]


def test_a_tiny_model_is_trained_for_a_few_steps(example, server, tmp_path):
    from transformers import Qwen2_5_VLForConditionalGeneration

    checkpoint = build_checkpoint(tmp_path / "tiny", example.SYSTEM, example.RemoteEpisode.crop)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(checkpoint)
    processor = processor_of(checkpoint)
    trainer = example.make_trainer(
        model,
        processor,
        server.url,
        count=1,
        output_dir=str(tmp_path / "run"),
        num_generations=4,
        per_device_train_batch_size=4,
        max_steps=STEPS,
        **TRAINING,
    )
    scripts = [Script(processor.tokenizer, rollouts()) for _ in range(STEPS)]
    trainer.model.generate = Rounds(scripts)
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()

    logs = [entry for entry in trainer.state.log_history if "reward" in entry]
    due = np.array([LOOK + 1.0, 0.0, 1.0, 0.0])  # by hand
    assert len(logs) == STEPS
    for log in logs:
        assert log["rewards/RemoteEpisode/mean"] == pytest.approx(due.mean())
        assert log["reward_std"] == pytest.approx(due.std(ddof=1), rel=1e-3)
        assert log["tools/failure_frequency"] == 0.0 and np.isfinite(log["loss"]) and log["grad_norm"] > 0
    # Skims of 6 frames; then the three that called, one of them with 4 new frames; then those that looked.
    assert [script.images for script in scripts] == [[24, 18 + 4, 10 + 6]] * STEPS
    moved = [name for name, value in trainer.model.named_parameters() if not value.equal(before[name])]
    assert any("visual" in name for name in moved), "no gradient reached the frames that came over the wire"
