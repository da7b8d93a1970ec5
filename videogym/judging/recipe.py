"""A recipe with another judge of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from types import MappingProxyType

from videogym.recipes import Recipe
from videogym.rewards import (
    ExecutedCalls,
    Judge,
    TermFunction,
    TriedInVain,
    ZoomedRightly,
    executed_calls,
    tried_in_vain,
    zoomed_rightly,
)

# Terms that named recipes hold as plain functions, and the same by any judge: so their identities stay.
_BY_JUDGE: Mapping[TermFunction, type[TriedInVain | ZoomedRightly | ExecutedCalls]] = MappingProxyType(
    {tried_in_vain: TriedInVain, zoomed_rightly: ZoomedRightly, executed_calls: ExecutedCalls}
)


def with_judge(recipe: Recipe, judge: Judge) -> Recipe:
    """The recipe, its answers judged by another judge, which becomes part of its identity.

    Every term that asks whether the answer is right asks this judge: functions that have a field ``judge``,
    but for parts that do not ask (``asks`` is False), and the named recipes' own. Published code that reads
    choices in its own way, such as VideoZoomer's and ParaVT's, goes on to do so. What the recipe says of
    its judge under ``choices`` no longer holds and is left out.

    Args:
        recipe: has a term that asks a judge, as all named recipes do.
        judge: a function with a name or a frozen dataclass.

    Raises:
        ValueError: no term asks a judge.
    """
    functions = [_judged(term.function, judge) for term in recipe.terms]
    if all(function is None for function in functions):
        raise ValueError(f"recipe {recipe.name!r} has no term that asks a judge")
    terms = tuple(
        term if function is None else replace(term, function=function)
        for term, function in zip(recipe.terms, functions, strict=True)
    )
    told = ("judge", "open answers")
    choices = tuple(choice for choice in recipe.choices if choice[0] not in told)
    return replace(recipe, terms=terms, choices=choices)


def _judged(function: TermFunction, judge: Judge) -> TermFunction | None:
    """The function with the judge; None if it asks none."""
    if not is_dataclass(function) or isinstance(function, type):
        by_judge = _BY_JUDGE.get(function)
        return None if by_judge is None else by_judge(judge)
    asks = any(one.name == "judge" for one in fields(function)) and getattr(function, "asks", True)
    return replace(function, judge=judge) if asks else None
