"""Two runs beside each other: what they were, what both played, how they differ on it, and where.

Nothing here says why; it says what differs, how sure that is, and what cannot be known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from videogym.comparison.divergence import Divergence, divergences
from videogym.comparison.paired import (
    McNemar,
    Pair,
    PairedMetric,
    PairGroup,
    discordance,
    groups,
    metrics,
    term_metrics,
)
from videogym.comparison.runs import ComparisonError, Run
from videogym.comparison.settings import Settings, differences
from videogym.grouping import require_known

LEVEL = 0.05  # below which p is taken for a difference
_NAMED = 3  # settings that the conclusion names
# What a recipe is called and told of it, which decides nothing.
_WORDS = ("recipe_identity", "recipe.name", "recipe.source", "recipe.choices")


@dataclass(frozen=True)
class Comparison:
    """What two runs have in common, and what they have not."""

    a: Run
    b: Run
    settings: Settings
    common: tuple[str, ...]  # ids of the tasks that both played, in A's order
    only_a: tuple[str, ...]  # ids of the tasks that A alone played
    only_b: tuple[str, ...]
    other_tasks: tuple[str, ...]  # of the common: something else is asked or right under the same id
    other_videos: tuple[str, ...]  # of the common: another video was shown
    metrics: tuple[PairedMetric, ...]  # over the common tasks
    terms: tuple[PairedMetric, ...]  # sums of reward terms over an episode
    mcnemar: McNemar | None  # of the answers; None where none was judged
    divergences: tuple[Divergence, ...] | None  # None: one of the two holds no turns
    groups: Mapping[str, tuple[PairGroup, ...]] = field(default_factory=dict)  # by a field of metadata

    @property
    def same_recipe(self) -> bool:
        """Whether both played by one recipe, the same."""
        return self.a.recipes == self.b.recipes and len(self.a.recipes) == 1

    @property
    def terms_of_one(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Reward terms that A alone, and B alone, was ever paid on the common tasks."""
        a, b = (
            dict.fromkeys(name for task_id in self.common for name in run.episodes[task_id].terms)
            for run in (self.a, self.b)
        )
        return tuple(name for name in a if name not in b), tuple(name for name in b if name not in a)

    @property
    def conclusion(self) -> str:
        """What the evidence says, in a sentence or two."""
        return f"{_verdict(self)} {_reasons(self)}"

    def to_json(self) -> dict[str, Any]:
        """All of it in JSON values."""
        return {
            "a": _head(self.a),
            "b": _head(self.b),
            "settings": asdict(self.settings),
            "tasks": {
                name: list(getattr(self, name))
                for name in ("common", "only_a", "only_b", "other_tasks", "other_videos")
            },
            "metrics": {metric.name: _row(metric) for metric in self.metrics},
            "terms": {metric.name: _row(metric) for metric in self.terms},
            "terms_of_one": dict(zip(("a", "b"), map(list, self.terms_of_one), strict=True)),
            "mcnemar": None if self.mcnemar is None else asdict(self.mcnemar),
            "divergences": None
            if self.divergences is None
            else {p.kind: list(p.tasks) for p in self.divergences},
            "groups": {
                name: [
                    {
                        "value": one.value,
                        "tasks": one.tasks,
                        "metrics": {f.name: _row(f) for f in one.metrics},
                    }
                    for one in of_name
                ]
                for name, of_name in self.groups.items()
            },
            "conclusion": self.conclusion,
        }


def compare(a: Run, b: Run, by: Sequence[str] = ()) -> Comparison:
    """Compare two runs. Differences are B - A.

    Args:
        a: the one.
        b: the other.
        by: names of fields of the tasks' metadata by which metrics are grouped too.

    Raises:
        ComparisonError: no task was played by both, or none has metadata of such a name.
    """
    common = tuple(task_id for task_id in a.episodes if task_id in b.episodes)
    if not common:
        ids = [f"{len(run.episodes)} such as {next(iter(run.episodes))!r}" for run in (a, b)]
        raise ComparisonError(f"no task was played by both: {a.name} has {ids[0]}, {b.name} has {ids[1]}")
    pairs: list[Pair] = [(a.episodes[task_id], b.episodes[task_id]) for task_id in common]
    try:
        require_known(by, (one.metadata for pair in pairs for one in pair))
    except ValueError as error:
        raise ComparisonError(str(error)) from error
    both = a.traces and b.traces
    return Comparison(
        a=a,
        b=b,
        settings=differences(a.settings, b.settings),
        common=common,
        only_a=tuple(task_id for task_id in a.episodes if task_id not in b.episodes),
        only_b=tuple(task_id for task_id in b.episodes if task_id not in a.episodes),
        other_tasks=tuple(x.task_id for x, y in pairs if x.task != y.task),
        other_videos=tuple(x.task_id for x, y in pairs if x.video != y.video),
        metrics=metrics(pairs),
        terms=term_metrics(pairs),
        mcnemar=discordance(pairs),
        divergences=divergences((a.traces[i], b.traces[i]) for i in common) if both else None,
        groups={name: groups(pairs, name) for name in by},
    )


def _head(run: Run) -> dict[str, Any]:
    names = ("name", "recipes", "repeated", "unscored", "bad_videos", "torn")
    return {name: getattr(run, name) for name in names} | {"episodes": len(run.episodes)}


def _row(metric: PairedMetric) -> Mapping[str, Any]:
    return {name: value for name, value in asdict(metric).items() if name != "name"}


# --- in words ----------------------------------------------------------------------------------


def _verdict(found: Comparison) -> str:
    tasks = "the one common task" if len(found.common) == 1 else f"the {len(found.common)} common tasks"
    if found.divergences is not None and {p.kind for p in found.divergences} == {"nowhere"}:
        return f"On {tasks} both saw the same frames by reference, did the same and were paid the same."
    accuracy = next((metric for metric in found.metrics if metric.name == "accuracy"), None)
    if accuracy is None or found.mcnemar is None:
        return f"On {tasks} no answer of both was judged."
    told = f"B - A = {signed_difference(accuracy)}, exact McNemar {p_value(found.mcnemar.p)}"
    if found.mcnemar.p < LEVEL:
        better, worse = ("B", "A") if found.mcnemar.only_b > found.mcnemar.only_a else ("A", "B")
        return f"On {tasks} {better} was right more often than {worse}, by more than is likely ({told})."
    if found.mcnemar.only_a == found.mcnemar.only_b == 0:
        return f"On {tasks} both were right on the same ones ({told})."
    return f"{tasks.capitalize()} do not show which run is right more often ({told})."


def _reasons(found: Comparison) -> str:
    """What differs and what is not known; never that it is why."""
    names = [one.name for one in found.settings.differing if not one.name.startswith(_WORDS)]
    reasons = []
    if changed := len({*found.other_tasks, *found.other_videos}):
        reasons.append(f"what {changed} of these tasks are (question, truth or video)")
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        reasons.append(f"settings ({', '.join(names[:_NAMED])}{more})")
    elif not found.same_recipe:
        reasons.append("their recipes")
    told = (
        f"They differ in {' and in '.join(reasons)}" if reasons else "No setting that both record differs"
    )
    if found.a.traces or found.b.traces:
        told += "; traces record neither policy nor seed, backend or versions"
    alone = (("A", found.only_a), ("B", found.only_b))
    if left_out := [f"{len(tasks)} that {letter} alone played" for letter, tasks in alone if tasks]:
        told += f"; tasks are left out, {' and '.join(left_out)}"
    return f"{told}."


def p_value(p: float) -> str:
    """A p-value as it is read.

    >>> p_value(0.0312), p_value(1e-9), p_value(1.0)
    ('p = 0.031', 'p < 0.0001', 'p = 1')
    """
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def signed_difference(metric: PairedMetric) -> str:
    """A difference with its interval."""
    one = metric.difference
    return f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
