"""GRPO with TRL's trainer on episodes that an OpenEnv server plays, here or on another machine.

    python -m videogym.openenv --sessions 8
    python examples/peers/trl_openenv.py --model Qwen/Qwen2.5-VL-3B-Instruct --url http://127.0.0.1:8000

Needs ``pip install trl torchvision`` beside ``videogym[agents]`` and ``videogym[openenv]``. Every rollout
of a batch holds one session of the server.
"""

import argparse
from importlib.resources import files

from datasets import Dataset
from PIL import Image
from transformers import AutoProcessor, ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from videogym.mistakes import told_in_a_line
from videogym.openenv import VideoAction, VideoEnv, VideoObservation

SYSTEM = (
    "You answer a question about a video. You see a few frames; look again where it matters, "
    "one function call a turn, and then call answer."
)


class RemoteEpisode:
    """What TRL makes for every rollout and uses again for later ones: one session of the server."""

    def __init__(self, url):
        self._env = VideoEnv(base_url=url).sync()
        self._reward, self._done = 0.0, True

    def reset(self, seed: int, **row) -> list:
        """The question and the first frames; rollouts of one row draw one task by their seed."""
        begun = self._env.reset(seed=seed)
        self._reward, self._done = 0.0, begun.done
        return _blocks(begun.observation)

    def crop(self, start_s: float, end_s: float, region: list[float] | None = None) -> list:
        """Show new frames of the video between two times.

        Args:
            start_s: Start in seconds, not negative.
            end_s: End in seconds, after the start.
            region: Part of the picture to enlarge, [x0, y0, x1, y1] in fractions of its width and height.
        """
        where = {} if region is None else {"region": region}
        return _blocks(self._call("crop", start_s=start_s, end_s=end_s, **where))

    def answer(self, text: str) -> list:
        """Give the final answer. This ends the episode.

        Args:
            text: The answer: the letter of an option, a number or a short text.
        """
        return _blocks(self._call("answer", text=text))

    def get_reward(self) -> float:
        """What the episode paid; one that the model has not ended is ended here, so that it is settled."""
        while not self._done:
            self._call("")  # no such tool: a turn is spent
        return self._reward

    def _call(self, tool, **arguments) -> VideoObservation:
        result = self._env.step(VideoAction(tool=tool, arguments=arguments))
        self._reward, self._done = self._reward + result.reward, result.done
        return result.observation


def _blocks(observation: VideoObservation) -> list:
    return [
        {"type": "text", "text": f"{part}\n"}
        if isinstance(part, str)
        else {"type": "image", "image": Image.fromarray(part)}
        for part in observation.parts()
    ]


def make_trainer(model, processor: ProcessorMixin, url, count=1000, **changes) -> GRPOTrainer:
    """A trainer of TRL's on a server's episodes.

    Args:
        model: a Qwen-VL, or the name of one.
        processor: of the model; its chat template is replaced by one that knows tools and shows images in
            their replies.
        url: of the server, which serves a recipe that crops.
        count: how many tasks are drawn, one for each seed from 0.
        changes: to the configuration.
    """
    template = files("trl").joinpath("chat_templates", "qwen3_vl.jinja")
    processor.chat_template = processor.tokenizer.chat_template = template.read_text(encoding="utf-8")
    prompt = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ""}]
    rows = [{"prompt": prompt, "seed": seed} for seed in range(count)]
    # A sampled placeholder has no frame behind it; TRL itself holds back only that of images.
    ids = processor.tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])
    usual = {
        "output_dir": "runs/trl-openenv",
        "num_generations": 8,
        "per_device_train_batch_size": 8,
        "max_completion_length": 4096,  # outputs, replies and their frames together
        "max_tool_calling_iterations": 6,
        "generation_kwargs": {"suppress_tokens": ids},
        "report_to": "none",
    }
    return GRPOTrainer(
        model=model,
        args=GRPOConfig(**{**usual, **changes}),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        environment_factory=lambda: RemoteEpisode(url),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True, help="name or folder of a Qwen-VL")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", help="of the server (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=200, help="updates (default: %(default)s)")
    options = parser.parse_args()
    with told_in_a_line(parser.prog):
        processor = AutoProcessor.from_pretrained(options.model)
    trainer = make_trainer(options.model, processor, options.url, max_steps=options.steps)
    trainer.train()
    trainer.save_model()
