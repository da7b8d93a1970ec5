"""Writes one page per registered environment from its class docstring, in Gymnasium's format.

``python docs/make_env_pages.py`` rewrites ``docs/environments``; with ``--check`` it only compares and
exits 1 when a page is out of date.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import gymnasium

import videogym
from videogym.recipes import Recipe, get_recipe

FOLDER = Path(__file__).parent / "environments"


def page(env_id: str) -> str:
    """Markdown of one environment's page."""
    kwargs = gymnasium.spec(env_id).kwargs
    recipe = get_recipe(kwargs["recipe"])
    docstring = _listed(inspect.cleandoc(videogym.VideoQAEnv.__doc__ or ""))
    return f"# {env_id}\n\n{_facts(env_id, recipe, kwargs['tasks'])}\n{docstring}\n"


def _listed(docstring: str) -> str:
    """Arguments and errors as lists; what is indented would be shown as code."""
    text = docstring.replace("\nArgs:\n", "\n\n").replace("\nRaises:\n", "\nErrors:\n\n").replace("``", "`")
    return re.sub(
        r"^ {8}", "  ", re.sub(r"^ {4}(\w+):", r"- `\1`:", text, flags=re.MULTILINE), flags=re.MULTILINE
    )


def _facts(env_id: str, recipe: Recipe, tasks: str) -> str:
    rules = recipe.rules
    rows = {
        "make": f'`gym.make("{env_id}")`',
        "recipe": f"`{recipe.name}`: {recipe.source}",
        "default tasks": f"`{tasks}`",
        "actions": ", ".join(rules.actions),
        "grammar with `TextActions`": f"`{recipe.grammar}`",
        "turns": rules.max_turns,
        "skim": f"{rules.skim_frames} frames"
        + (f" at most, at {rules.skim_fps:g} fps" if rules.skim_fps else ""),
        "pool": f"{rules.pool_frames} frames" if rules.pool_frames else "none",
        "a look": f"at most {rules.clip_frames} frames",
        "frame budget": rules.frame_budget or "none",
        "unreadable output": "ends the episode" if rules.malformed == "end" else "spends the turn",
    }
    facts = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    terms = "\n".join(
        f"| `{term.name}` | {term.level} | {term.weight:g} | {term.gated} "
        f"| {_function(described['function'])} |"
        for term, described in zip(recipe.terms, recipe.describe()["terms"], strict=True)
    )
    chosen = "\n".join(f"- **{name}**: {choice}" for name, choice in recipe.choices)
    sections = [
        f"| | |\n|---|---|\n{facts}",
        "## Reward terms",
        f"| term | level | weight | gated | function |\n|---|---|---|---|---|\n{terms}",
        *(["Left open by the source and chosen here:", chosen] if chosen else []),
    ]
    return "\n\n".join(sections) + "\n"


def _function(described: str | dict[str, dict[str, object]]) -> str:
    """A term's function as it is written: ``AnswerTerm(judge=judge_lenient, decay=0.1)``."""
    if isinstance(described, str):
        return f"`{described.rpartition(':')[2]}`"
    ((name, settings),) = described.items()
    written = ", ".join(f"{key}={_setting(value)}" for key, value in settings.items())
    return f"`{name.rpartition(':')[2]}({written})`"


def _setting(value: object) -> str:
    is_name = isinstance(value, str) and ":" in value
    return str(value).rpartition(":")[2] if is_name else repr(value)


def main(check: bool) -> int:
    """Write or compare all pages."""
    stale = []
    for env_id in sorted(spec for spec in gymnasium.registry if spec.startswith("videogym/")):
        path, text = FOLDER / f"{env_id.split('/')[1]}.md", page(env_id)
        if not path.exists() or path.read_text() != text:
            stale.append(path.name)
            if not check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
    print(f"{'out of date' if check else 'written'}: {', '.join(stale) or 'none'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
