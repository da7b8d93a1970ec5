"""Writes one page per registered environment from its class docstring, in Gymnasium's format.

``python docs/make_env_pages.py`` rewrites ``docs/environments``; with ``--check`` it only compares and
exits 1 when a page is out of date.
"""

from __future__ import annotations

import inspect
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
    docstring = inspect.cleandoc(videogym.VideoQAEnv.__doc__ or "").replace("\nArgs:\n", "\n")
    return f"# {env_id}\n\n{_facts(env_id, recipe, kwargs['tasks'])}\n{docstring}\n"


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
        f"| `{term.name}` | {term.level} | {term.weight:g} | {term.gated} | `{described['function']}` |"
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
