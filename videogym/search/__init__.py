"""Searching a video for what a text describes: what an index is, and one over procedural videos.

An index sees frames and the query alone, never a task. One over any CLIP-like model, which needs torch, is
`agents.models.embedding_index`.
"""

from videogym.search.index import FrameIndex, Hits, SearchError, WrongIndex, best_moments, search_video
from videogym.search.procedural import ProceduralIndex

__all__ = [
    "FrameIndex",
    "Hits",
    "ProceduralIndex",
    "SearchError",
    "WrongIndex",
    "best_moments",
    "search_video",
]
