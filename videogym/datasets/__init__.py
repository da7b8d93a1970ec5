"""Where tasks come from: procedural families and task files."""

from videogym.datasets.loading import load_tasks
from videogym.datasets.procedural import ProceduralTasks
from videogym.datasets.task_files import TaskFileError, read_tasks, write_tasks
from videogym.datasets.tasks import EvidenceError, TaskList, Tasks, check_evidence
from videogym.datasets.video_r1 import read_video_r1

__all__ = [
    "EvidenceError",
    "ProceduralTasks",
    "TaskFileError",
    "TaskList",
    "Tasks",
    "check_evidence",
    "load_tasks",
    "read_tasks",
    "read_video_r1",
    "write_tasks",
]
