"""A recipe with another judge of its answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeGuard

from videogym.recipes import Recipe
from videogym.rewards import AnswerTerm, Judge, TermFunction, TranscriptScore


def with_judge(recipe: Recipe, judge: Judge) -> Recipe:
    """The recipe, its answers judged by another judge, which becomes part of its identity.

    What the recipe says of its judge under ``choices`` no longer holds and is left out.

    Args:
        recipe: has a term that asks a judge, as all named recipes do.
        judge: a function with a name or a frozen dataclass.

    Raises:
        ValueError: no term asks a judge.
    """
    if not any(_asks(term.function) for term in recipe.terms):
        raise ValueError(f"recipe {recipe.name!r} has no term that asks a judge")
    terms = tuple(
        replace(term, function=replace(term.function, judge=judge)) if _asks(term.function) else term
        for term in recipe.terms
    )
    choices = tuple(choice for choice in recipe.choices if choice[0] != "judge")
    return replace(recipe, terms=terms, choices=choices)


def _asks(function: TermFunction) -> TypeGuard[AnswerTerm | TranscriptScore]:
    return isinstance(function, AnswerTerm) or (
        isinstance(function, TranscriptScore) and function.part == "answer"
    )
