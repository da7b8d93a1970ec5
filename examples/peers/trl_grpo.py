"""GRPO with TRL's trainer: an episode is an environment whose methods are the model's tools.

    python examples/peers/trl_grpo.py --model Qwen/Qwen2.5-VL-3B-Instruct --steps 200

Needs ``pip install trl torchvision`` beside ``videogym[agents]``. What TRL leaves out, such as rewards of
single turns, is listed in docs/peers.md.
"""

import argparse
from importlib.resources import files

from datasets import Dataset
from PIL import Image
from transformers import AutoProcessor, ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from videogym import VideoQAEnv
from videogym.mistakes import told_in_a_line
from videogym.tool_episode import ToolEpisode, ToolReply

TASKS = "procedural:brief_event?level=0&duration_s=120&count=1000"
RECIPE = "DEFAULT"
SYSTEM = (
    "You answer a question about a video. You see a few frames; look again where it matters, "
    "one function call a turn, and then call answer."
)


class VideoEpisode:
    """What TRL makes for every rollout and uses again for later ones."""

    def __init__(self, tasks=TASKS, recipe=RECIPE):
        self._episode = ToolEpisode(VideoQAEnv(tasks, recipe), "native")

    def reset(self, task_id: str, **row) -> list:
        """The question and the first frames, which TRL adds to the last message of the row's prompt."""
        return _blocks(self._episode.begin(task_id=task_id))

    def crop(self, start_s: float, end_s: float, region: list[float] | None = None) -> list:
        """Show new frames of the video between two times.

        Args:
            start_s: Start in seconds, not negative.
            end_s: End in seconds, after the start.
            region: Part of the picture to enlarge, [x0, y0, x1, y1] in fractions of its width and height.
        """
        where = {} if region is None else {"region": region}
        return _blocks(self._episode.call("crop", {"start_s": start_s, "end_s": end_s, **where}))

    def answer(self, text: str) -> list:
        """Give the final answer. This ends the episode.

        Args:
            text: The answer: the letter of an option, a number or a short text.
        """
        return _blocks(self._episode.call("answer", {"text": text}))

    def get_reward(self) -> float:
        """What the episode paid; one that the model has not ended is ended here, so that it is settled."""
        while not self._episode.state.terminated:
            self._episode.call("", {})  # no such function: a turn is spent
        return sum(self._episode.rewards)


def _blocks(reply: ToolReply) -> list:
    return [
        {"type": "text", "text": f"{part}\n"}
        if isinstance(part, str)
        else {"type": "image", "image": Image.fromarray(part)}
        for part in reply.parts
    ]


def make_trainer(model, processor: ProcessorMixin, tasks=TASKS, recipe=RECIPE, **changes) -> GRPOTrainer:
    """A trainer of TRL's on a source of tasks.

    Args:
        model: a Qwen-VL, or the name of one.
        processor: of the model; its chat template is replaced by one that knows tools and shows images in
            their replies.
        tasks: for `videogym.datasets.load_tasks`.
        recipe: name of a recipe that crops, or the recipe.
        changes: to the configuration.
    """
    template = files("trl").joinpath("chat_templates", "qwen3_vl.jinja")
    processor.chat_template = processor.tokenizer.chat_template = template.read_text(encoding="utf-8")
    env = VideoQAEnv(tasks, recipe)
    prompt = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ""}]
    rows = [{"prompt": prompt, "task_id": env.tasks[i].task_id} for i in range(len(env.tasks))]
    # A sampled placeholder has no frame behind it; TRL itself holds back only that of images.
    ids = processor.tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])
    usual = {
        "output_dir": "runs/trl",
        "num_generations": 8,
        "per_device_train_batch_size": 8,
        "max_completion_length": 4096,  # outputs, replies and their frames together
        "max_tool_calling_iterations": env.recipe.rules.max_turns,
        "generation_kwargs": {"suppress_tokens": ids},
        "report_to": "none",
    }
    return GRPOTrainer(
        model=model,
        args=GRPOConfig(**{**usual, **changes}),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        environment_factory=lambda: VideoEpisode(tasks, recipe),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True, help="name or folder of a Qwen-VL")
    parser.add_argument("--steps", type=int, default=200, help="updates (default: %(default)s)")
    options = parser.parse_args()
    with told_in_a_line(parser.prog):
        processor = AutoProcessor.from_pretrained(options.model)
    trainer = make_trainer(options.model, processor, max_steps=options.steps)
    trainer.train()
    trainer.save_model()
