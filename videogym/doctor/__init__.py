"""What is wrong with a video file, and how to mend it."""

from videogym.doctor.causes import CAUSES, Cause, Finding, finding
from videogym.doctor.examination import Decode, Examination, Facts, examine, examine_all

__all__ = [
    "CAUSES",
    "Cause",
    "Decode",
    "Examination",
    "Facts",
    "Finding",
    "examine",
    "examine_all",
    "finding",
]
