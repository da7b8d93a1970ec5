"""What tests of TRL share: an example, a tiny model with its processor, and a generation by a script."""

# ruff: noqa: D103

import importlib.util
import json
import os
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples" / "peers"
# Of the trainer, as all tests want them.
TRAINING = {
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
}


def load_example(name):
    """A file of the examples as a module."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_checkpoint(folder, system, tool):
    """A tiny model whose tokenizer knows the words of a system prompt, of a tool and of its calls."""
    from agents.models.tiny_qwen import build_tiny_qwen

    words = [system, tool.__doc__, say("crop", start_s=1.5, end_s=20.25), "Refused."]
    return build_tiny_qwen(folder, words * 4, vocab_size=600)


def processor_of(folder):
    """The checkpoint's processor without its part for videos, which would need torchvision."""
    from transformers import AutoTokenizer, Qwen2_5_VLProcessor, Qwen2VLImageProcessorPil

    class ImagesOnly(Qwen2_5_VLProcessor):
        def check_argument_for_proper_class(self, argument_name, argument):
            if argument_name != "video_processor":
                super().check_argument_for_proper_class(argument_name, argument)

    images = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=28 * 28 * 64)
    return ImagesOnly(images, AutoTokenizer.from_pretrained(folder), None)


def say(name, **arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


class Script:
    """Stands for ``generate``: each rollout says its texts, one a turn, and stops when it calls nothing.

    Attributes:
        images: how many images the model was shown in each call.
    """

    def __init__(self, tokenizer, rollouts):
        self.tokenizer, self.left, self.images = tokenizer, [list(texts) for texts in rollouts], []
        self.active = list(range(len(rollouts)))

    def __call__(self, input_ids, image_grid_thw=None, **_):
        """What generation returns: the prompts and what follows them."""
        import torch

        assert len(input_ids) == len(self.active), "other rollouts go on than those that called a tool"
        self.images.append(0 if image_grid_thw is None else len(image_grid_thw))
        texts = [self.left[row].pop(0) for row in self.active]
        self.active = [row for row, text in zip(self.active, texts, strict=True) if "<tool_call>" in text]
        ids = [self.tokenizer.encode(f"{text}<|im_end|>", add_special_tokens=False) for text in texts]
        longest = max(map(len, ids))
        padded = [row + [self.tokenizer.pad_token_id] * (longest - len(row)) for row in ids]
        return torch.cat([input_ids, torch.tensor(padded)], dim=1)
