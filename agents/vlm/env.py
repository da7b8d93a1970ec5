"""videogym episodes as a TorchRL environment that speaks token ids.

`ChatEnv` plays a batch of episodes in groups that start from one cloned state; the episode lives in the
TensorDict as a `Record`, its frames as references. Pixels, models and losses are not known here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tensordict import NonTensorData, TensorDict, TensorDictBase, lazy_stack
from torchrl.data import Binary, Composite, NonTensor, Unbounded
from torchrl.envs import EnvBase
from transformers import PreTrainedTokenizerBase

from videogym import Snapshot, State, Task, VideoQAEnv
from videogym.cost import FREE, Cost, Stopwatch
from videogym.rewards import answered_right, finite
from videogym.video import VideoError

from ..models.visuals import ChatForm
from ..training.run import Span, untimed
from .chat import Chat
from .records import Record, TurnRecord, fingerprint

log = logging.getLogger(__name__)
MAX_PASSED_OVER = 100  # tasks in a row that cannot be played; more of them are no accident


class NoRoom(ValueError):
    """A question that leaves no room for an output in the context."""


class ChatEnv(EnvBase):
    """Groups of videogym episodes in lockstep, acted in by token ids.

    Every reset draws one task per group and clones its first state ``group_size`` times. A row whose
    episode has ended waits, with nothing asked of its policy, until all have ended: `done` comes for
    the whole batch at once, so that a batch holds exactly one episode per row and a group is always
    complete.

    What a policy reads: ``"record"``, the `Record` of the episode so far, whose last turn has no output
    yet, and ``"waiting"``. What it writes: ``"record"`` with the output. Beside them stand ``"query"``,
    the name of the group, and ``"reward_terms"``, their sums so far, NaN where absent.

    Args:
        env: the environment that plays every row; it must show references, not pixels.
        tokenizer: of the policy's checkpoint.
        groups: tasks per batch.
        group_size: episodes per task.
        form: how the policy's family is shown frames.
        window: earlier turns that a policy reads again; None: all.
        max_context: tokens, placeholders counted singly, that a context may have; an observation that
            does not fit is taken back whole and the episode is cut.
        first_frames: numbers of first frames, one of which is drawn for each task of a batch, with equal
            odds, and shared by its group; none: as many as the recipe shows. Episodes of named tasks
            (`open_task`) have the recipe's.
        seed: of the tasks, and of these numbers.

    Raises:
        ValueError: the environment shows pixels, or the recipe shows fewer first frames than a number.
    """

    def __init__(
        self,
        env: VideoQAEnv,
        tokenizer: PreTrainedTokenizerBase,
        *,
        groups: int,
        group_size: int,
        form: ChatForm | None = None,
        window: int | None = None,
        max_context: int = 32_768,
        first_frames: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=(groups * group_size,))
        if env.observe != "references":
            raise ValueError("a ChatEnv keeps frames as references; make the environment without pixels")
        self.chat = Chat(tokenizer, env.recipe.language, form)
        self.term_names = env.recipe.term_names
        self.env, self.window, self.max_context = env, window, max_context
        self.snapshots: list[Snapshot] = []
        self.tokenizer, self._tokenizer = tokenizer, fingerprint(tokenizer)
        self._groups, self._group_size = groups, group_size
        for number in first_frames:
            env.recipe.rules.skimming(number)
        self._first_frames = tuple(first_frames)
        self._make_specs()
        self.iteration = 0  # of the run: what a mixture draws may depend on it
        self.set_seed(seed)

    def _make_specs(self) -> None:
        rows = self.batch_size[0]
        self.observation_spec = Composite(
            record=NonTensor((rows,)),
            query=NonTensor((rows,)),
            waiting=Binary(shape=(rows, 1), dtype=torch.bool),
            reward_terms=Unbounded((rows, len(self.term_names)), dtype=torch.float32),
            shape=(rows,),
        )
        self.action_spec = Composite(record=NonTensor((rows,)), shape=(rows,))
        self.reward_spec = Unbounded((rows, 1), dtype=torch.float32)

    def _set_seed(self, seed: int | None) -> None:
        self._seed, self._batches = 0 if seed is None else seed, 0
        self._generator = torch.Generator().manual_seed(self._seed)

    def _reset(self, tensordict: TensorDictBase | None, **_: Any) -> TensorDictBase:
        self.snapshots = []
        rows: list[TensorDict] = []
        for group in range(self._groups):
            record = self._draw(f"{self._seed}.{self._batches}.{group}")
            self.snapshots += [self.env.get_state()] * self._group_size
            rows += [self._row(replace(record, sample_index=number)) for number in range(self._group_size)]
        self._batches += 1
        return lazy_stack(rows)

    def _draw(self, group: str) -> Record:
        """Begin the episode of a task; tasks that cannot be played are passed over and logged."""
        for _ in range(MAX_PASSED_OVER):
            try:
                self.env.reset(seed=self._below(2**31), options=self._drawn_options())
                return self.open(group)
            except (VideoError, NoRoom) as error:
                log.warning("passed over: %s", error)
                last = error
        raise type(last)(f"{MAX_PASSED_OVER} tasks in a row could not be played, the last: {last}")

    def _below(self, bound: int) -> int:
        return int(torch.randint(bound, (), generator=self._generator))

    def _drawn_options(self) -> dict[str, int]:
        """The iteration, and how many first frames an episode has, where that is drawn."""
        numbers = self._first_frames
        drawn = {"skim_frames": numbers[self._below(len(numbers))]} if numbers else {}
        return {"iteration": self.iteration, **drawn}

    def open_task(self, task_id: str) -> Record:
        """The record of a task's episode in which nothing has been said; cut, if it cannot be played."""
        try:
            self.env.reset(options={"task_id": task_id})
            return self.open(f"task {task_id}")
        except (VideoError, NoRoom) as error:
            log.warning("passed over: %s", error)
            task = self.env.tasks.by_id(task_id)
            return self._record(task, f"task {task_id}", abort_reason=f"fault: {error}")

    def open(self, group: str) -> Record:
        """The record of the environment's present episode, in which nothing has been said.

        Raises:
            NoRoom: the question does not fit into the context.
        """
        state = self.env.state
        head, turn = self.chat.opening(state)
        record = self._record(state.task, group, head=head, turns=(turn,))
        require_room(self.chat, record, self.max_context)
        return record

    def demonstration(self, name: str, head: tuple[int, ...], turns: tuple[TurnRecord, ...]) -> Record:
        """The record of a conversation that was never played; cut, if it does not fit into the context."""
        record = self._new_record(name, f"task {name}", kind="demonstration", head=head, turns=turns)
        length = self.chat.length(record) + len(turns[-1].output)
        return replace(record, abort_reason="context" if length > self.max_context else "")

    def _record(self, task: Task, group: str, **fields: Any) -> Record:
        return self._new_record(task.task_id, group, **{"metadata": task.metadata, **fields})

    def _new_record(self, task_id: str, group: str, **fields: Any) -> Record:
        blank: dict[str, Any] = {"kind": "rollout", "head": (), "turns": ()}
        return Record(
            recipe=self.env.recipe.identity,
            tokenizer=self._tokenizer,
            task_id=task_id,
            group=group,
            sample_index=0,
            window=self.window,
            **{**blank, **fields},
        )

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        played = [self._play(place, row["record"]) for place, row in enumerate(tensordict.unbind(0))]
        done = all(row["record"].done for row in played)
        for row in played:
            row.update({"done": torch.tensor([done]), "terminated": torch.tensor([done])})
        return lazy_stack(played)

    def _play(self, place: int, record: Record) -> TensorDict:
        """One turn of one row: its output becomes a move, the answer to it becomes ids."""
        episode = Episode(record, self.snapshots[place])
        episode.advance(self, record)
        self.snapshots[place] = episode.snapshot
        paid = episode.record.total_reward - record.total_reward
        return self._row(episode.record).set("reward", torch.tensor([paid]))

    def advance(self, record: Record) -> Record:
        """Play the output of a record's last turn in the environment as it stands."""
        turn = record.turns[-1]
        if had_no_room(self.chat, record, self.max_context):
            return replace(record, abort_reason="context")
        text = self.chat.output_text(turn.output)
        _, reward, _, _, info = self.env.step(self.chat.grammar.parse(text, self.env.state))
        state = self.env.state
        reward = finite(reward, f"the reward of task {record.task_id!r}")  # wrappers may have changed it
        paid = {
            name: finite(value, f"reward term {name!r} of task {record.task_id!r}")
            if info["reward_present"][name]
            else None
            for name, value in info["reward_terms"].items()
        }
        turn = replace(
            turn,
            text=text,
            reward=reward,
            terms=paid,
            looked=state.turns[-1].looked,
            error=str(info["error_code"]),
        )
        record = replace(record, turns=(*record.turns[:-1], turn))
        if info["fault"]:
            return replace(record, abort_reason=f"fault: {info['fault']}")
        if state.terminated:
            right = answered_right(self.env.recipe.terms, paid.get("answer"), state)
            if right is None:
                return replace(record, abort_reason="judge: it abstained from the answer")
            return replace(record, ending=state.ending, success=right)
        return replied(self.chat, record, state, self.max_context)

    def tokens_read(self, record: Record) -> int:
        """Tokens of all contexts that outputs of a record were sampled in, placeholders counted singly.

        What a server without a prefix cache reads: a conversation counts again in every turn.
        """
        return sum(self.chat.length(record, turn) for turn, one in enumerate(record.turns) if one.output)

    def _row(self, record: Record) -> TensorDict:
        sums = [record.total(name) if record.played else None for name in self.term_names]
        return TensorDict(
            {
                "record": NonTensorData(record),
                "query": NonTensorData(record.group),
                "waiting": torch.tensor([record.done]),
                "reward_terms": torch.tensor([torch.nan if value is None else value for value in sums]),
            }
        )


def require_room(chat: Chat, record: Record, max_context: int) -> None:
    """Refuse a conversation in which nothing can be said.

    Raises:
        NoRoom: the question does not fit into the context.
    """
    if (length := chat.length(record)) >= max_context:
        raise NoRoom(
            f"the question of task {record.task_id!r} takes {length} tokens with its frames and leaves "
            f"no room in max_context={max_context}; raise it, or show fewer or smaller frames"
        )


def had_no_room(chat: Chat, record: Record, max_context: int) -> bool:
    """Whether the last output of a record is one that the context left no room to end."""
    output = record.turns[-1].output
    return output[-1] != chat.end_id and chat.length(record) + len(output) >= max_context


def replied(chat: Chat, record: Record, state: State, max_context: int) -> Record:
    """A record with what followed its last output; cut, without it, where that does not fit."""
    reply = chat.reply(state, closed=record.turns[-1].output[-1] == chat.end_id)
    longer = replace(record, turns=(*record.turns, reply))
    return replace(record, abort_reason="context") if chat.length(longer) >= max_context else longer


@dataclass
class Episode:
    """One that is being played, and can be continued in any process."""

    record: Record
    snapshot: Snapshot  # of the environment before the output of the record's last turn is played
    cost: Cost = FREE  # seconds so far; of what several did together, an equal share

    def advance(self, env: ChatEnv, answered: Record) -> None:
        """Play the output that was sampled, unless the policy cut the episode.

        Where its video can no longer be opened it is cut without that output, which was never played.
        """
        if not answered.done:
            try:
                env.env.set_state(self.snapshot)
            except VideoError as error:
                log.warning("task %s: %s", answered.task_id, error)
                answered = replace(answered.answered((), (), ()), abort_reason=f"fault: {error}")
            else:
                answered = env.advance(answered)
                self.snapshot = env.env.get_state()
        self.record = answered


def play(
    env: ChatEnv,
    answer: Callable[[Sequence[Record]], list[Record]],
    episodes: Sequence[Episode],
    span: Span = untimed,
    ended: Callable[[Episode], object] = lambda episode: None,
) -> list[Record]:
    """Play opened episodes to their ends, in lockstep.

    Args:
        env: plays their outputs.
        answer: gives every record one output more.
        episodes: each in its own state; changed in place.
        span: times ``generate`` and ``environment``.
        ended: called with every episode as soon as it has ended.
    """
    watch = Stopwatch()
    while running := [episode for episode in episodes if not episode.record.done]:
        with span("generate"):
            answered = answer([episode.record for episode in running])
        lap = watch.lap("model")
        with span("environment"):
            for episode, record in zip(running, answered, strict=True):
                episode.advance(env, record)
                own = watch.lap("environment")
                episode.cost = episode.cost.plus(lap, 1 / len(running)).plus(own)
                if episode.record.done:
                    ended(episode)
    return [episode.record for episode in episodes]
