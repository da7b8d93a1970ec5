"""A family of vision-language models of your own, from one file: registered, loaded, and asked.

It is Qwen2.5-VL under another name and with other means of pixels, with tiny random weights, so that
nothing is downloaded. Put your own classes of transformers in its place.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from agents.models.checkpoints import save_processor
from agents.models.family import Family, register
from agents.models.qwen_vl import QwenVL, patch_layout
from agents.models.tiny_qwen import tiny_config, train_tokenizer
from agents.vlm.config import ChatConfig
from agents.vlm.evaluation import rollout_metrics
from agents.vlm.policy import make_actor, make_model
from agents.vlm.rollouts import make_chat_env, rollouts
from agents.vlm.tiny import corpus
from videogym import FrameStore, VideoQAEnv

TASKS = "procedural:brief_event?level=0&duration_s=60&event_s=3&count=4"


class OwlConfig(Qwen2_5_VLConfig):
    """Its configuration."""

    model_type = "owl_vl"


class OwlForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    """Its model."""

    config_class = OwlConfig


AutoConfig.register("owl_vl", OwlConfig)
register(
    Family(
        name="owl_vl",
        model_class=OwlForConditionalGeneration,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        video="video",
        seconds_in_positions=True,
        processor="Qwen2_5_VLProcessor",
        video_processor="Qwen2VLVideoProcessor",
    )
)


def build(folder: Path) -> None:
    """A checkpoint with random weights, as ``save_pretrained`` writes it."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(corpus(VideoQAEnv(TASKS, "LONGVT_TINY"), episodes=4), 700)
    numbers = tiny_config(tokenizer, 64, 32, 2).to_dict()
    model = OwlForConditionalGeneration(OwlConfig(**{**numbers, "model_type": "owl_vl"}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_processor(folder, patch_layout(model.config))


def main() -> None:
    """Play two episodes with it."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        config = ChatConfig.of(checkpoint=folder, tasks=TASKS, max_new_tokens=8)
        model: QwenVL = make_model(config, FrameStore())
        env = make_chat_env(config, model, TASKS, groups=2)
        played = rollouts(env, make_actor(config, model))
        metrics = rollout_metrics(played)
        print(f"{model.family}: {len(played)} episodes, {metrics['turns']:.1f} turns each")
        env.env.close()


if __name__ == "__main__":
    main()
