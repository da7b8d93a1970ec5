"""Episodes whose tokens are sampled at random while a script says what they mean: work without learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agents.engines.base import Sampling
from agents.vlm.actor import ChatActor
from agents.vlm.env import ChatEnv
from agents.vlm.records import Record


class ScriptedEnv(ChatEnv):
    """Episodes in which sampled tokens stand for what a script says, ``said`` turn by turn."""

    said: Sequence[str]

    def advance(self, record: Record) -> Record:
        """Play the script's words, keep the sampled tokens."""
        number = len(record.turns) - 1
        said = replace(record.turns[-1], output=tuple(self.chat.output_ids(self.said[number])))
        after = super().advance(replace(record, turns=(*record.turns[:-1], said)))
        kept = replace(after.turns[number], output=record.turns[-1].output)
        return replace(after, turns=(*after.turns[:number], kept, *after.turns[number + 1 :]))


class ScriptedActor(ChatActor):
    """An actor whose outputs have given ``lengths``, turn by turn."""

    lengths: Sequence[int]

    def answer(self, records: Sequence[Record], sampling: Sampling | None = None) -> list[Record]:
        """One output more, none of which ends by itself."""
        length = self.lengths[max(len(record.turns) for record in records) - 1]
        return super().answer(records, replace(self.sampling, max_new_tokens=length, end_id=-1))
