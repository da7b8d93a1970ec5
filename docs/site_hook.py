"""What MkDocs is told beside ``mkdocs.yml``: code blocks keep their language and nothing else.

A block such as ```` ```python peers=mcp ```` names the packages that its test needs. GitHub passes over
such words; Python-Markdown would show the whole block as text.
"""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with the opening lines of its code blocks cut after the language."""
    return re.sub(r"^(```\w+) .*$", r"\1", markdown, flags=re.MULTILINE)
