"""Conversations as token ids, and videogym episodes as a TorchRL environment that speaks them.

`Chat` lays messages out as LongVT does with Qwen2.5-VL. Text never becomes structure: a question that
spells a special token is encoded as plain characters. `ChatEnv` plays a batch of episodes in groups
that start from one cloned state; the conversation lives in the TensorDict as ids, its frames as
references. Pixels, models and losses are not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, cast

import torch
from tensordict import NonTensorData, TensorDict, TensorDictBase, lazy_stack
from tokenizers import Tokenizer
from torch import Tensor
from torchrl.data import Binary, Composite, NonTensor, Unbounded
from torchrl.envs import EnvBase
from transformers import PreTrainedTokenizerBase

from videogym import Region, Snapshot, State, VideoQAEnv
from videogym.grammars import FramePart, Grammar, Message, Part, TextPart, get_grammar
from videogym.video.sampling import smart_resize

from .policies.qwen_vl import WHOLE_FRAME, tokens_per_frame


class Chat:
    """Lays conversations out as token ids.

    The layout is that of LongVT's training: no newline after ``<|im_end|>``, tool replies inside a user
    block, one image per frame.

    Args:
        tokenizer: of a Qwen-VL checkpoint.
        grammar: what makes messages from states.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, grammar: Grammar) -> None:
        self.grammar, self._tokenizer = grammar, tokenizer
        backend = tokenizer.backend_tokenizer
        # The same merges without the added tokens: no text can turn into one.
        self._plain = Tokenizer(backend.model)
        self._plain.normalizer, self._plain.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
        names = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
        ids = cast(list[int], tokenizer.convert_tokens_to_ids(list(names)))
        self._begin, self.end_id, *self._vision = ids

    def opening(self, state: State) -> list[int]:
        """Ids of the whole conversation so far, up to where the assistant writes.

        Outputs of earlier turns are encoded from their text: only for states without a sampled past.
        """
        return self._blocks(state, self.grammar.messages(state)) + self._prompt()

    def reply(self, state: State) -> list[int]:
        """Ids of what followed the last output, up to where the assistant writes again."""
        messages = self.grammar.messages(state)
        last = max(place for place, message in enumerate(messages) if message.role == "assistant")
        return self._blocks(state, messages[last + 1 :]) + self._prompt()

    def frames(self, state: State) -> list[FramePart]:
        """All frames of the conversation so far, in the order in which the ids show them."""
        parts = (part for message in self.grammar.messages(state) for part in message.parts)
        return [part for part in parts if isinstance(part, FramePart)]

    def output_ids(self, text: str) -> list[int]:
        """Ids of a text as a model writes it: ``<tool_call>`` is one token, specials are spelled out."""
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def text_ids(self, text: str) -> list[int]:
        """Ids of a text by its characters alone; no added token is among them."""
        return self._plain.encode(text).ids

    def output_text(self, ids: Sequence[int]) -> str:
        """What a sampled output says, without its end token."""
        said = list(ids[:-1] if len(ids) and ids[-1] == self.end_id else ids)
        text = self._tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return cast(str, text)

    def _prompt(self) -> list[int]:
        return [self._begin, *self.text_ids("assistant\n")]

    def _blocks(self, state: State, messages: Iterable[Message]) -> list[int]:
        ids: list[int] = []
        for role, group in groupby(messages, key=lambda message: message.role):
            if role == "tool":  # replies to parallel calls share one block
                ids += self._block("user", [part for message in group for part in message.parts], state)
            else:
                ids += [i for message in group for i in self._message(message, state)]
        return ids

    def _message(self, message: Message, state: State) -> list[int]:
        if message.role == "user":
            return self._block("user\n", message.parts, state)
        # Written by the grammar or the policy alone: here the tokens of a tool call are what they are.
        head = self.text_ids(f"{message.role}\n")
        return [self._begin, *head, *self.output_ids(message.text), self.end_id]

    def _block(self, head: str, parts: Iterable[Part], state: State) -> list[int]:
        ids, text = [self._begin], head
        for part in parts:
            if isinstance(part, TextPart):
                text += part.text  # neighbours are encoded together, as a tokenizer would
            else:
                ids += [*self.text_ids(text), *self._frame(part, state)]
                text = ""
        return [*ids, *self.text_ids(text), self.end_id]

    def _frame(self, part: FramePart, state: State) -> list[int]:
        start, pad, end = self._vision
        count = tokens_per_frame(frame_size(state, part.region), state.rules.size_factor)
        return [start, *[pad] * count, end]


def frame_size(state: State, region: Region | None) -> tuple[int, int]:
    """``(width, height)`` at which a frame is shown: the recipe's pixel budget, aspect kept."""
    x0, y0, x1, y1 = region.as_tuple() if region else WHOLE_FRAME
    width, height = round(state.video.width * (x1 - x0)), round(state.video.height * (y1 - y0))
    rules = state.rules
    height, width = smart_resize(height, width, rules.min_pixels, rules.max_pixels, rules.size_factor)
    return width, height


class ChatEnv(EnvBase):
    """Groups of videogym episodes in lockstep, acted in by token ids.

    Every reset draws one task per group and clones its first state ``group_size`` times. A row whose
    episode has ended waits, with nothing asked of its policy, until all have ended: `done` comes for
    the whole batch at once, so that a batch holds exactly one episode per row and a group is always
    complete.

    What a policy reads: ``("tokens", "prompt")`` ids so far, ``("masks", "prompt_sampled")`` which of
    them it sampled, ``("log_probs", "prompt")``, the references ``("frames", ...)``, ``"waiting"``,
    ``"query"`` (the group), ``"reward_terms"`` (their sums so far, NaN where absent). What it writes:
    ``("tokens", "full")``, ``("masks", "all_assistant_mask")``, ``("log_probs", "full")``, the same
    with its output appended.

    Args:
        env: the environment that plays every row; it must show references, not pixels.
        tokenizer: of the policy's checkpoint.
        groups: tasks per batch.
        group_size: episodes per task.
        seed: of the tasks.

    Raises:
        ValueError: the environment shows pixels.
    """

    def __init__(
        self,
        env: VideoQAEnv,
        tokenizer: PreTrainedTokenizerBase,
        *,
        groups: int,
        group_size: int,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=(groups * group_size,))
        if env.observe != "references":
            raise ValueError("a ChatEnv keeps frames as references; make the environment without pixels")
        self.chat = Chat(tokenizer, get_grammar(env.recipe.grammar))
        self.term_names = env.recipe.term_names
        self.snapshots: list[Snapshot] = []
        self._env, self._groups, self._group_size, self._batches = env, groups, group_size, 0
        self._make_specs()
        self.set_seed(seed)

    def _make_specs(self) -> None:
        rows = self.batch_size[0]
        ids = Unbounded((rows, -1), dtype=torch.int64)
        flags = Binary(shape=(rows, -1), dtype=torch.bool)
        floats = Unbounded((rows, -1), dtype=torch.float32)
        frames = Composite(
            video=NonTensor((rows,)),
            times_s=Unbounded((rows, -1), dtype=torch.float64),
            regions=Unbounded((rows, -1, 4), dtype=torch.float64),
            sizes=Unbounded((rows, -1, 2), dtype=torch.int64),
            shape=(rows,),
        )
        self.observation_spec = Composite(
            tokens=Composite(prompt=ids, shape=(rows,)),
            masks=Composite(prompt_sampled=flags, shape=(rows,)),
            log_probs=Composite(prompt=floats, shape=(rows,)),
            frames=frames,
            query=NonTensor((rows,)),
            waiting=Binary(shape=(rows, 1), dtype=torch.bool),
            reward_terms=Unbounded((rows, len(self.term_names)), dtype=torch.float32),
            shape=(rows,),
        )
        self.action_spec = Composite(tokens=Composite(full=ids.clone(), shape=(rows,)), shape=(rows,))
        self.reward_spec = Unbounded((rows, 1), dtype=torch.float32)

    def _set_seed(self, seed: int | None) -> None:
        self._generator = torch.Generator().manual_seed(0 if seed is None else seed)

    def _reset(self, tensordict: TensorDictBase | None, **_: Any) -> TensorDictBase:
        self.snapshots = []
        rows: list[TensorDict] = []
        for group in range(self._groups):
            self._env.reset(seed=int(torch.randint(2**31, (), generator=self._generator)))
            start, state = self._env.get_state(), self._env.state
            ids = torch.tensor(self.chat.opening(state))
            terms = torch.full((len(self.term_names),), torch.nan)
            row = self._row(state, f"{self._batches}.{group}", ids, ids != ids, ids * 0.0, terms)
            self.snapshots += [start] * self._group_size
            rows += [row.clone() for _ in range(self._group_size)]
        self._batches += 1
        return lazy_stack(rows)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        played = [self._play(place, row) for place, row in enumerate(tensordict.unbind(0))]
        done = all(snapshot.state.terminated for snapshot in self.snapshots)
        for row in played:
            row.update({"done": torch.tensor([done]), "terminated": torch.tensor([done])})
        return lazy_stack(played)

    def _play(self, place: int, row: TensorDictBase) -> TensorDict:
        """One turn of one row: its output becomes a move, the answer to it becomes ids."""
        full = row["tokens", "full"]
        sampled, log_probs = row["masks", "all_assistant_mask"], row["log_probs", "full"]
        terms, reward = row["reward_terms"], 0.0
        if not row["waiting"].any():
            text = self.chat.output_text(full[len(row["tokens", "prompt"]) :].tolist())
            reward, paid = self._move(place, text)
            terms = torch.where(paid.isnan(), terms, terms.nan_to_num() + paid)
        state = self.snapshots[place].state
        if not state.terminated:
            # An output cut at the token limit is closed here; that end was not sampled.
            end = [] if full[-1] == self.chat.end_id else [self.chat.end_id]
            added = torch.tensor([*end, *self.chat.reply(state)])
            full = torch.cat([full, added])
            sampled = torch.cat([sampled, added != added])
            log_probs = torch.cat([log_probs, added * 0.0])
        after = self._row(state, row["query"], full, sampled, log_probs, terms)
        return after.set("reward", torch.tensor([reward]))

    def _move(self, place: int, text: str) -> tuple[float, Tensor]:
        self._env.set_state(self.snapshots[place])
        move = self.chat.grammar.parse(text, self._env.state)
        _, reward, _, _, info = self._env.step(move)
        self.snapshots[place] = self._env.get_state()
        return reward, torch.tensor([info["reward_terms"][name] for name in self.term_names]).float()

    def _row(
        self, state: State, query: str, ids: Tensor, sampled: Tensor, log_probs: Tensor, terms: Tensor
    ) -> TensorDict:
        parts = self.chat.frames(state)
        boxes = [part.region.as_tuple() if part.region else WHOLE_FRAME for part in parts]
        frames = {
            "video": NonTensorData(state.task.video),
            "times_s": torch.tensor([part.time_s for part in parts], dtype=torch.float64),
            "regions": torch.tensor(boxes, dtype=torch.float64),
            "sizes": torch.tensor([frame_size(state, part.region) for part in parts]),
        }
        return TensorDict(
            {
                "tokens": {"prompt": ids},
                "masks": {"prompt_sampled": sampled},
                "log_probs": {"prompt": log_probs.float()},
                "frames": frames,
                "query": NonTensorData(query),
                "waiting": torch.tensor([state.terminated]),
                "reward_terms": terms,
            }
        )
