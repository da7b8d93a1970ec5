"""Your own videos: a task file and a folder are enough.

Run as it stands it makes a folder with one short H.264 video and a task file in a temporary place;
replace both by your own.
"""

import json
import tempfile
from pathlib import Path

import videogym
from videogym.cli.terminal import progress_bar
from videogym.testing.policies import Oracle, Random
from videogym.video.synthetic import encode

folder = Path(tempfile.mkdtemp())
task = videogym.VideoQAEnv("procedural:brief_event?level=0&duration_s=60&count=1&split=test").tasks[0]
encode(task.video, folder / "clip.mp4")
row = {
    "task_id": "mine-1",
    "video": "clip.mp4",
    "question": task.question,
    "kind": "choice",
    "options": list(task.options),
    "answer": task.answer,
    "evidence": [[segment.start_s, segment.end_s] for segment in task.evidence or ()],
    "source": "mine",
}
(folder / "tasks.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")

env = videogym.VideoQAEnv(str(folder / "tasks.jsonl"), video_root=str(folder))
for name, policy in {"random": Random(seed=0), "oracle": Oracle()}.items():
    report = videogym.evaluate(policy, env, progress=progress_bar("episodes"))
    print(f"{name:7} accuracy {report.accuracy}  frames {report.frames.mean:.0f}")
env.close()
