"""What fits on GPUs, from the real shapes on meta tensors: memory that is computed, never measured.

`plan` tells what follows from a shape alone, `plan_of_sizes` which options fit for a size of model and a
number of GPUs. `plan_of_commands` takes the commands for eight GPUs as the documentation and the examples
of configs show them, word by word, reads them as their programs do, plays an episode of their recipe, and
sends its first micro-batch through a model of the real shape whose tensors have no memory. Weights and
data that are not here are all that it replaces.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers import AttentionInterface, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from agents.demonstrations.evidence import Demonstrator
from agents.models.qwen2_5_vl import tiny_config
from agents.models.qwen_vl import QwenVL
from agents.models.tiny_qwen import train_tokenizer
from agents.training.config_file import parse_with_config
from agents.training.options import from_options
from agents.vlm.command import training_parser
from agents.vlm.policy import apply_adapters
from agents.vlm.prefix_cache import PrefixCache
from agents.vlm.records import passages
from agents.vlm.rollouts import demonstrate, make_chat_env
from agents.vlm.tiny import corpus
from videogym import VideoQAEnv
from videogym.grammars import get_grammar

ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
SHAPES: dict[str, dict[str, Any]] = {  # the published config.json of each
    "3b": {
        "text": {
            "vocab_size": 151_936,
            "hidden_size": 2048,
            "intermediate_size": 11_008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
        },
        "tied": True,
    },
    "7b": {
        "text": {
            "vocab_size": 152_064,
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        "tied": False,
    },
}


def numbers(shape: str, **tokens: int) -> Qwen2_5_VLConfig:
    """The configuration of a shape."""
    text = {**SHAPES[shape]["text"], "rope_parameters": ROPE, "max_position_embeddings": 128_000}
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config={**VISION, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=SHAPES[shape]["tied"],
        **tokens,
    )


def activations(shape: str, lora_rank: int = 64, tokens: int = 64) -> int:
    """Bytes a token that the backward pass of one decoder layer wants, counted as a layer stores them.

    In bfloat16 on a CPU, with adapters; attention by a kernel that does not store its weights.
    """
    small = numbers(shape)
    small.text_config.num_hidden_layers = 1
    small.text_config.layer_types = small.text_config.layer_types[:1]
    small.text_config.vocab_size = 8
    with torch.device("meta"):
        whole = Qwen2_5_VLForConditionalGeneration(small).model.language_model
    layer = whole.layers[0].to(torch.bfloat16).to_empty(device="cpu")
    for weight in layer.parameters():
        torch.nn.init.zeros_(weight)
    layer.requires_grad_(False)
    adapters = LoraConfig(
        r=lora_rank, lora_alpha=2 * lora_rank, target_modules=r".*\.(q|k|v|o|gate|up|down)_proj"
    )
    inject_adapter_in_model(adapters, layer)
    mine = {weight.untyped_storage().data_ptr() for weight in layer.parameters()}
    stored: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in mine:
            stored[storage.data_ptr()] = storage
        return tensor

    text = small.text_config
    hidden = torch.zeros(1, tokens, text.hidden_size, dtype=torch.bfloat16, requires_grad=True)
    turn = torch.ones(1, tokens, text.hidden_size // text.num_attention_heads, dtype=torch.bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(hidden, attention_mask=None, position_embeddings=(turn, turn))
    return sum(storage.nbytes() for storage in stored.values()) // tokens


def plan(shape: str, lora_rank: int = 64) -> str:
    """Memory that follows from the shape alone, in words; nothing of it is measured on a GPU."""
    config = numbers(shape)
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    weights = sum(p.numel() for p in model.parameters())
    adapters = adapters_of(model, lora_rank)
    text = config.text_config
    width = text.hidden_size // text.num_attention_heads
    kept = 2 * text.num_hidden_layers * text.num_key_value_heads * width * 2  # keys and values, bfloat16
    inside, layers = activations(shape, lora_rank), text.num_hidden_layers
    # A layer keeps its input, in bfloat16, and is run again behind it.
    checkpointed = (2 * text.hidden_size * layers + inside) * 32_768
    # Weights, gradients and both moments of AdamW are float32 where they are trained.
    return (
        f"{shape}: {weights / 1e9:.2f}e9 weights, {2 * weights / 1e9:.1f} GB in bfloat16; "
        f"all of them trained {16 * weights / 1e9:.0f} GB; LoRA of rank {lora_rank}: "
        f"{adapters / 1e6:.0f}e6, {16 * adapters / 1e9:.1f} GB; keys and values {kept / 1e3:.0f} kB a "
        f"token, {32_768 * kept / 1e9:.1f} GB for a skim of 32,768, {16 * 2_048 * kept / 1e9:.1f} GB for "
        f"16 responses of 2,048; activations {inside / 1e3:.0f} kB a token and layer, "
        f"{inside * layers * 32_768 / 1e9:.0f} GB for that skim, {checkpointed / 1e9:.0f} GB with "
        f"--gradient-checkpointing; {plan_of_ranks(model, adapters)}"
    )


def adapters_of(model: torch.nn.Module, lora_rank: int) -> int:
    """Weights of adapters on all linear layers of the language model."""
    linear = r"language_model.*\.(q|k|v|o|gate|up|down)_proj$"
    return sum(
        lora_rank * (module.in_features + module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and re.search(linear, name)
    )


def plan_of_ranks(model: torch.nn.Module, adapters: int, ranks: int = 8) -> str:
    """What a rank holds besides activations, keys and values; see `agents.training.sharding`."""

    def count(*modules: torch.nn.Module) -> int:
        return sum(weight.numel() for module in modules for weight in module.parameters())

    layers, vision = model.model.language_model.layers, count(model.model.visual)
    whole = count(model)
    together = whole - count(*layers, *model.model.visual.blocks)  # embeddings, norms, head
    # All trained: float32 shards of weights, gradients and both moments.
    all_trained = 16 * whole / ranks
    # Gathered in bfloat16: what stays together, a layer and the next; and a gradient of what is together,
    # in bfloat16 and, to be summed, in float32.
    gathered = 2 * (together + 2 * count(layers[0])) + 6 * together
    # Adapters: a frozen vision tower is whole everywhere; nothing of what is together has a gradient.
    frozen = 2 * (whole - vision) / ranks + 2 * vision
    return (
        f"a rank of {ranks}: all trained {all_trained / 1e9:.1f} GB of shards and {gathered / 1e9:.1f} GB "
        f"gathered at most in an update; with adapters {(frozen + 16 * adapters / ranks) / 1e9:.1f} GB and "
        f"{2 * (together - (vision - count(*model.model.visual.blocks)) + 2 * count(layers[0])) / 1e9:.1f} "
        f"GB; {2 * whole / 1e9:.1f} GB gathered while sampling"
    )


# --- which options fit -------------------------------------------------------------------------

GPU_GB = 80.0
SPARE = 0.9  # of a GPU's memory; the rest is for kernels, fragments and what is on its way
PREFIX, RESPONSE = 32_768, 4_096  # LongVT's skim, and what a rollout has behind it, looks included


@dataclass(frozen=True)
class Memory:
    """What a rank holds, from a shape alone; see `agents.training.sharding`.

    Args:
        shape: of the model.
        ranks: of torchrun; 1: one process.
        lora_rank: of adapters; 0: all weights are trained.
        reference: whether there is a reference policy; with adapters it is the model without them.
    """

    shape: str
    ranks: int
    lora_rank: int = 0
    reference: bool = True

    def update(
        self, rows: int, checkpointed: bool, prefix: int = PREFIX, response: int = RESPONSE
    ) -> float:
        """Bytes at most while a micro-batch of so many rollouts behind one prefix is learned from."""
        facts = facts_of(self.shape)
        tokens = prefix + rows * response
        inside = facts.inside * self._wide
        if checkpointed:  # a layer keeps its input and is run again behind it
            kept = (2 * self._wide * facts.width * facts.layers + inside) * tokens
        else:
            kept = inside * facts.layers * tokens
        return self._held + self._gathered + kept + facts.kept * self._wide * prefix

    def sampling(self, episodes: int, prefix: int = PREFIX, response: int = RESPONSE) -> float:
        """Bytes at most while so many episodes are played together."""
        facts = facts_of(self.shape)
        whole = 0.0 if self.ranks == 1 else 2.0 * facts.whole
        return self._held + whole + episodes * facts.kept * self._wide * (prefix + response)

    @property
    def _wide(self) -> int:
        """Two where one process computes in float32 because it trains all weights, else one."""
        return 2 if self.ranks == 1 and not self.lora_rank else 1

    @property
    def _held(self) -> float:
        """Weights, gradients and moments, and a reference policy where it is another model."""
        facts, n = facts_of(self.shape), self.ranks
        if not self.lora_rank:
            frozen = 4 * facts.whole if n == 1 else 4 * (facts.whole - facts.vision) / n + 2 * facts.vision
            return 16 * facts.whole / n + frozen * self.reference
        if n == 1:
            return 2 * facts.whole + 16 * facts.adapters
        return 2 * (facts.whole - facts.vision) / n + 2 * facts.vision + 16 * facts.adapters / n

    @property
    def _gathered(self) -> float:
        facts = facts_of(self.shape)
        if self.ranks == 1:
            return 0.0
        if self.lora_rank:
            return 2 * (facts.together + 2 * facts.layer)
        return 2 * (facts.together + facts.together_of_vision + 2 * facts.layer) + 6 * (
            facts.together + facts.together_of_vision
        )


@dataclass(frozen=True)
class Facts:
    """Numbers of weights of a shape, and bytes of a token."""

    whole: int
    vision: int
    adapters: int  # of rank 64
    layer: int
    layers: int
    width: int
    together: int  # embeddings, norms and head of the language model
    together_of_vision: int  # what of the vision tower is not in its blocks
    inside: int  # bytes that a decoder layer stores of a token
    kept: int  # bytes of keys and values of a token


@cache
def facts_of(shape: str) -> Facts:
    """Counted on meta tensors."""
    config = numbers(shape)
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)

    def count(*modules: torch.nn.Module) -> int:
        return sum(weight.numel() for module in modules for weight in module.parameters())

    inner, text = model.model, config.text_config
    layers, whole, vision = inner.language_model.layers, count(model), count(inner.visual)
    of_vision = vision - count(*inner.visual.blocks)
    head = text.hidden_size // text.num_attention_heads
    return Facts(
        whole=whole,
        vision=vision,
        adapters=adapters_of(model, 64),
        layer=count(layers[0]),
        layers=len(layers),
        width=text.hidden_size,
        together=whole - vision - count(*layers),
        together_of_vision=of_vision,
        inside=activations(shape),
        kept=2 * text.num_hidden_layers * text.num_key_value_heads * head * 2,
    )


def plan_of_sizes(gpus: Sequence[int] = (1, 2, 4, 8, 16), gpu_gb: float = GPU_GB) -> Iterator[str]:
    """What fits for each size and number of GPUs, and with which options; a line each."""
    yield (
        f"GRPO with a skim of {PREFIX:,} tokens and {RESPONSE:,} of a rollout behind it, {SPARE:.0%} of "
        f"{gpu_gb:.0f} GB:"
    )
    for shape, number, lora_rank in product(SHAPES, gpus, (0, 64)):
        what = f"LoRA of rank {lora_rank}" if lora_rank else "all weights"
        fits = fitting(Memory(shape, number, lora_rank), gpu_gb)
        yield f"{shape}, {number} GPU{'s' * (number > 1)}, {what}: {fits}"


def fitting(memory: Memory, gpu_gb: float = GPU_GB) -> str:
    """The options with which most fits, or what it is that does not."""
    room = SPARE * gpu_gb * 1e9
    choices = ((rows, again) for again in (False, True) for rows in (16, 8, 4, 2, 1))
    update = next((choice for choice in choices if memory.update(*choice) <= room), None)
    episodes = next((n for n in (64, 32, 16, 8, 4, 2, 1) if memory.sampling(n) <= room), None)
    if update is None or episodes is None:
        least, one = memory.update(1, True) / 1e9, memory.sampling(1) / 1e9
        return f"does not fit: at least {least:.0f} GB in an update, {one:.0f} GB while sampling"
    rows, again = update
    options = [
        *(["--dtype bfloat16"] if memory.ranks > 1 or memory.lora_rank else []),
        *([f"--lora-rank {memory.lora_rank}"] if memory.lora_rank else []),
        *(["--gradient-checkpointing"] if again else []),
        f"--micro-batch-size {rows} --max-concurrent-rollouts {episodes}",
    ]
    return (
        f"{' '.join(options)}: {memory.update(rows, again) / 1e9:.0f} GB in an update, "
        f"{memory.sampling(episodes) / 1e9:.0f} GB while sampling"
    )


# --- the documented commands -------------------------------------------------------------------

NAME = "shape_only"
ROOT = Path(__file__).parents[2]
TASKS = "procedural:brief_event?level=0&duration_s=512&size=640x360&count=4"


def _shape_only(module: Any, query: torch.Tensor, key: Any, value: Any, *_: Any, **__: Any) -> Any:
    """Attention's result by its shape: the real kernels do not run on meta tensors as on a GPU."""
    return torch.empty_like(query).transpose(1, 2), None


# For a kernel that transformers does not know it makes no mask, whose making looks at values.
AttentionInterface.register(NAME, _shape_only)


def documented() -> list[str]:
    """The commands that start eight ranks: first lines of the examples, and what the page shows."""
    examples = sorted((ROOT / "examples" / "configs").glob("*.yaml"))
    lines = [path.read_text(encoding="utf-8").partition("\n")[0].partition(": ")[2] for path in examples]
    page = (ROOT / "docs" / "language_models.md").read_text(encoding="utf-8")
    return lines + re.findall(r"^torchrun --nproc-per-node 8 (?!.*\.\.\.).*$", page, re.MULTILINE)


def plan_of_commands(commands: Sequence[str] = ()) -> Iterator[str]:
    """The first forward of every documented command, by its shapes; its answer stands a line below."""
    for command in commands or documented():
        with patch.dict(os.environ, {"TORCHELASTIC_RUN_ID": "plan"}):  # as under torchrun
            yield f"{command}\n    {rehearsed(command)}"


def rehearsed(command: str) -> str:
    """What a command's first micro-batch is, after a forward pass of the real shape on meta tensors.

    Raises:
        SystemExit: its program would refuse the options.
        Exception: what the program itself would raise on the way there.
    """
    words = shlex.split(command)
    assert words[0] == "torchrun"
    ranks, own = int(words[words.index("--nproc-per-node") + 1]), words.index("-m")
    module = importlib.import_module(words[own + 1])
    parser = training_parser(None, module.Config, Path("runs"))
    # Commands are given in the root of the repository.
    told = [str(ROOT / word) if word.startswith("examples/") else word for word in words[own + 2 :]]
    config = from_options(module.Config, vars(parse_with_config(parser, told)))
    (shape,) = (shape for shape in SHAPES if shape in config.model.checkpoint.lower())
    here = {"tasks": TASKS, "eval_tasks": f"{TASKS}&split=val", "video_root": "", "checkpoint": ""}
    if hasattr(config, "demonstrations"):
        here["script"] = "evidence"
    played = config.with_options(**here)
    env = VideoQAEnv(TASKS, played.rules)
    model = apply_adapters(played, on_meta(shape, env))
    chat = make_chat_env(played, model, TASKS)
    script = Demonstrator(get_grammar(played.rules.grammar), seed=0, look_again=True)
    record = next(demonstrate(chat, script, [chat.env.tasks[0].task_id]))
    if record.abort_reason:
        raise ValueError(f"its episode was cut: {record.abort_reason}")
    part = passages(record)[0]
    prefix = model.length(part.ids[: part.outputs[0][1]], record.turns[0].visuals)
    behind = max(1, model.length(part.ids, part.visuals) - prefix)
    rows, together = config.memory.micro_batch_size, config.memory.max_concurrent_rollouts
    shown = sum(model.layout.tokens(visual) for visual in record.turns[0].visuals)
    log_probs = forward(model, prefix, shown, rows, behind)
    memory = Memory(shape, ranks, config.model.lora_rank, reference=bool(getattr(config, "kl_coef", 0)))
    update = memory.update(rows, config.memory.gradient_checkpointing, prefix, behind)
    sampling = memory.sampling(together or rows, prefix, behind)
    return (
        f"{len(record.turns[0].visuals)} frames and the question are {prefix:,} tokens, {rows} rollouts of "
        f"{behind:,} behind them gave {len(log_probs):,} log-probabilities; each of {ranks} GPUs holds "
        f"{update / 1e9:.0f} GB in an update and {sampling / 1e9:.0f} GB while sampling"
    )


def on_meta(shape: str, env: VideoQAEnv) -> QwenVL:
    """A model of a shape whose weights have no memory, with a tokenizer that knows the recipe's words."""
    tokenizer = train_tokenizer(corpus(env, episodes=4), 896)
    tiny = tiny_config(tokenizer, 64, 32, 1)  # for the ids of its tokens
    ids = {name: value for name, value in tiny.to_dict().items() if name.endswith("_token_id") and value}
    config = numbers(shape, **ids)
    config._attn_implementation = NAME
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
    return QwenVL(model, tokenizer, env.store)


def forward(model: QwenVL, prefix: int, shown: int, rows: int, length: int) -> torch.Tensor:
    """Log-probabilities of a micro-batch, as `agents.vlm.scoring` computes them; all on meta tensors.

    Args:
        model: on the meta device.
        prefix: tokens that the rollouts have in common.
        shown: tokens of frames among them.
        rows: rollouts.
        length: tokens of each behind the prefix.
    """
    text = model.model.config.text_config

    def laid(many: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.zeros(many, count, dtype=torch.long, device="meta")
        return ids, ids.expand(3, many, count)

    features = torch.zeros(shown, text.hidden_size, dtype=torch.bfloat16, device="meta")
    made = PrefixCache(text)
    model.hidden(*laid(1, prefix), None, [features], made)
    layers = [(layer.keys, layer.values) for layer in made.layers]
    behind = PrefixCache(text, layers, torch.zeros(rows, dtype=torch.long, device="meta"))
    hidden = model.hidden(*laid(rows, length), None, (), behind).flatten(0, 1)
    log_probs, _ = model.log_probs(hidden, torch.zeros(len(hidden), dtype=torch.long, device="meta"), 1.0)
    return log_probs
