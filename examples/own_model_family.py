"""A family of vision-language models of your own, from one file: registered, loaded, and asked.

It is Qwen2.5-VL under another name and with other means of pixels, with tiny random weights, so that
nothing is downloaded. Put your own classes of transformers in its place.
"""

from __future__ import annotations

import tempfile

from transformers import (
    AutoConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from agents.models.family import Family, register
from agents.models.qwen2_5_vl import tiny_config
from agents.models.qwen_vl import QwenVL
from agents.models.tiny_qwen import build_tiny_qwen
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


def tiny(tokenizer: PreTrainedTokenizerFast, hidden_size: int, vision_size: int, layers: int) -> OwlConfig:
    """What a tiny one is: Qwen2.5-VL's numbers under this name."""
    numbers = tiny_config(tokenizer, hidden_size, vision_size, layers).to_dict()
    return OwlConfig(**{**numbers, "model_type": "owl_vl"})


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
        tiny=tiny,
    )
)


def main() -> None:
    """Play two episodes with it."""
    with tempfile.TemporaryDirectory() as folder:
        words = corpus(VideoQAEnv(TASKS, "LONGVT_TINY"), episodes=4)
        build_tiny_qwen(folder, words, family="owl_vl", vocab_size=700)
        config = ChatConfig.of(checkpoint=folder, tasks=TASKS, max_new_tokens=8)
        model: QwenVL = make_model(config, FrameStore())
        env = make_chat_env(config, model, TASKS, groups=2)
        played = rollouts(env, make_actor(config, model))
        metrics = rollout_metrics(played)
        print(f"{model.family}: {len(played)} episodes, {metrics['turns']:.1f} turns each")
        env.env.close()


if __name__ == "__main__":
    main()
