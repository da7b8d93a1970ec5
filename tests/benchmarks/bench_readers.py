"""Seconds and memory that 100,000 rows of each published format take to read.

The rows are made up, about as long as the real ones, and written to a temporary folder. Every format is
read in a fresh process, whose peak resident memory is reported beside that of importing videogym alone
(Linux only). The limits are 10 seconds of CPU time, all threads together, and 1 GB; the script fails where
one is passed.

Run ``python tests/benchmarks/bench_readers.py [--rows N] [FORMAT ...]``.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

LIMIT_S, LIMIT_MB = 10.0, 1000.0
QUESTION = "What does the person in the red jacket do after the second train has left the station {}?"
OPTIONS = [f"{letter}. They do something that takes {i} words to tell" for i, letter in enumerate("ABCD")]
BARE = [option[3:] for option in OPTIONS]
THOUGHT = "<think>" + "The first look shows a station and a train, so I look closer. " * 40 + "</think>"
CALL = '<tool_call>{"name": "crop_video", "arguments": {"start_time": 10, "end_time": 20}}</tool_call>'

READ = """
import json, re, sys, time
import videogym.datasets
start, cpu_start = time.perf_counter(), time.process_time()
count = 0 if sys.argv[1] == "nothing" else len(videogym.datasets.load_tasks(sys.argv[1]))
taken = time.perf_counter() - start, time.process_time() - cpu_start
# Of this program alone: what getrusage tells includes the process that started it.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([count, *taken, peak]))
"""

Row = dict[str, Any]


def main() -> int:
    """Measure the formats and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(FORMATS))
    arguments = parser.parse_args()
    base = read("nothing")[-1]
    print(f"importing videogym: {base:.0f} MB\n")
    print(f"{'format':<16}{'file MB':>9}{'rows':>9}{'CPU s':>9}{'wall s':>9}{'peak MB':>9}")
    missed = False
    for name in arguments.formats or FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            path = FORMATS[name](Path(folder), arguments.rows)
            size = path.stat().st_size / 2**20
            count, wall_s, cpu_s, peak = read(f"{name}:{path}")
        late = cpu_s > LIMIT_S or peak > LIMIT_MB or count != arguments.rows
        missed |= late
        metrics = f"{size:>9.0f}{count:>9}{cpu_s:>9.2f}{wall_s:>9.2f}{peak:>9.0f}"
        print(f"{name:<16}{metrics}{'  MISSED' if late else ''}", flush=True)
    return int(missed)


def read(source: str) -> tuple[int, float, float, float]:
    """Tasks, seconds by the wall and of the CPU, and peak megabytes, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", READ, source], capture_output=True, text=True, check=True)
    count, wall_s, cpu_s, peak = json.loads(done.stdout)
    return count, wall_s, cpu_s, peak


# --- files -------------------------------------------------------------------------------------


def parquet(name: str, row: Callable[[int], Row]) -> Callable[[Path, int], Path]:
    """Writes rows in parts, as they would not fit into memory at once."""

    def write(folder: Path, rows: int) -> Path:
        path, part = folder / name, 10_000
        schema = pyarrow.Table.from_pylist([row(0)]).schema
        with pyarrow.parquet.ParquetWriter(path, schema) as file:
            for start in range(0, rows, part):
                some = [row(i) for i in range(start, min(start + part, rows))]
                file.write_table(pyarrow.Table.from_pylist(some, schema))
        return path

    return write


def json_list(name: str, row: Callable[[int], Row]) -> Callable[[Path, int], Path]:
    """Writes one list, indented as published files are."""

    def write(folder: Path, rows: int) -> Path:
        path = folder / name
        with path.open("w") as file:
            file.write("[\n")
            for i in range(rows):
                file.write(json.dumps(row(i), indent=4) + (",\n" if i < rows - 1 else "\n]\n"))
        return path

    return write


def lines(name: str, texts: Callable[[int], Iterator[str]]) -> Callable[[Path, int], Path]:
    """Writes a text a line."""

    def write(folder: Path, rows: int) -> Path:
        path = folder / name
        with path.open("w") as file:
            file.writelines(text + "\n" for text in texts(rows))
        return path

    return write


def write_nextgqa(folder: Path, rows: int) -> Path:
    """Ten questions a video, with the times and the places beside them."""
    videos = [str(2_400_000_000 + i) for i in range((rows + 9) // 10)]
    location = {str(i): [[1.5, 7.25], [20.0, 24.5]] for i in range(10)}
    times = {video: {"duration": 64, "location": location, "fps": 29.97} for video in videos}
    (folder / "gsub_val.json").write_text(json.dumps(times))
    (folder / "map_vid_vidorID.json").write_text(json.dumps({video: f"0063/{video}" for video in videos}))
    path = folder / "val.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("video_id", "question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4"))
        writer.writerows(
            (videos[i // 10], QUESTION.format(i), BARE[2], i % 10, "CW", *BARE, "none") for i in range(rows)
        )
    return path


def lvbench_lines(rows: int) -> Iterator[str]:
    """Fifteen questions a video."""
    text = QUESTION + "".join(f"\n({letter}) {text}" for letter, text in zip("ABCD", BARE, strict=True))
    for start in range(0, rows, 15):
        qa = [
            {"uid": str(i), "question": text.format(i), "answer": "C", "time_reference": "01:05-1:20:10"}
            for i in range(start, min(start + 15, rows))
        ]
        yield json.dumps({"key": f"video{start}", "type": "tv", "qa": qa})


def conversation(i: int) -> Row:
    """A question, a look and an answer, some 6,000 characters."""
    address = {"url": f"longvt_source/tvg_{i % 9}/{i // 5}.mp4"}

    def said(role: str, *parts: Row) -> Row:
        return {"role": role, "content": list(parts)}

    def text(words: str) -> Row:
        return {"type": "text", "text": words, "video_url": None, "image_url": None}

    return {
        "messages": [
            said("system", text("You may call tools. " * 20)),
            said(
                "user",
                text(QUESTION.format(i) + " Think first, call **crop_video** if needed, then answer."),
                {"type": "video_url", "text": None, "video_url": address, "image_url": None},
            ),
            said("assistant", text(THOUGHT + CALL)),
            said(
                "user",
                text("<tool_response>"),
                *({"type": "image_url", "text": None, "video_url": None, "image_url": address},) * 10,
            ),
            said("assistant", text(THOUGHT + "<answer>They wait.</answer>")),
        ]
    }


FORMATS: dict[str, Callable[[Path, int], Path]] = {
    "cg-bench": json_list(
        "cgbench.json",
        lambda i: {
            "qid": i,
            "video_uid": f"video{i // 10}",
            "question": QUESTION.format(i),
            "answer": BARE[1],
            "choices": BARE,
            "right_answer": "B",
            "clue_intervals": [[10, 20], [300, 330.5]],
            "duration": 1600.5,
        },
    ),
    "charades-sta": lines(
        "charades_sta_train.txt",
        lambda rows: (
            f"V{i // 8} 2.5 {9 + i % 7}.1##person number {i} turns a light on." for i in range(rows)
        ),
    ),
    "egoschema": parquet(
        "Subset.parquet",
        lambda i: {
            "video_idx": f"0074f737-{i}",
            "question": QUESTION.format(i),
            "option": [*OPTIONS, "E. none"],
            "answer": "3",
        },
    ),
    "longvideobench": json_list(
        "lvb_val.json",
        lambda i: {
            "id": f"video_{i}",
            "video_path": f"video{i // 4}.mp4",
            "question": QUESTION.format(i) * 3,
            "candidates": BARE,
            "correct_choice": 1,
            "position": [854],
            "duration": 190.16,
        },
    ),
    "longvt-rl": parquet(
        "longvt_rl.parquet",
        lambda i: {
            "data_source": "longvt",
            "prompt": [{"role": "user", "content": QUESTION.format(i) * 10}],
            "videos": [{"video": f"file:///mnt/longvt_source/{i // 5}.mp4", "fps": 1}],
            "reward_model": {"ground_truth": "They wait for the next train.", "style": "model"},
            "extra_info": {"question": QUESTION.format(i), "video_segment": [10.5, 30.0], "index": i},
        },
    ),
    "longvt-sft": parquet("longvt_sft.parquet", conversation),
    "lvbench": lines("video_info.meta.jsonl", lvbench_lines),
    "mlvu": json_list(
        "1_plotQA.json",
        lambda i: {
            "video": f"movie_{i // 5}.mp4",
            "duration": 480.0,
            "question": QUESTION.format(i),
            "candidates": BARE,
            "answer": BARE[2],
            "question_type": "plotQA",
        },
    ),
    "nextgqa": write_nextgqa,
    "qvhighlights": lines(
        "highlight_train_release.jsonl",
        lambda rows: (
            json.dumps(
                {
                    "qid": i,
                    "query": f"A family of {i} is playing basketball together on a green court outside.",
                    "duration": 150,
                    "vid": f"bP5KfdFJzC4_{i}.0_{i + 150}.0",
                    "relevant_windows": [[0, 16], [40, 62]],
                    "relevant_clip_ids": list(range(19)),
                    "saliency_scores": [[4, 1, 1]] * 19,
                }
            )
            for i in range(rows)
        ),
    ),
    "video-mme": parquet(
        "test.parquet",
        lambda i: {
            "question_id": f"{i // 3:03}-{i}",
            "videoID": f"video{i // 3}",
            "question": QUESTION.format(i),
            "options": OPTIONS,
            "answer": "D",
        },
    ),
    "video-mmmu": parquet(
        "test.parquet",
        lambda i: {
            "id": f"validation_Art_{i}",
            "question": QUESTION.format(i) * 3,
            "options": OPTIONS,
            "answer": "B",
        },
    ),
    "videosiah-eval": parquet(
        "test.parquet",
        lambda i: {
            "video_path": f"videos/{i // 3}.mp4",
            "question": QUESTION.format(i),
            "answer": "They wait for the next train and read a newspaper.",
        },
    ),
}


if __name__ == "__main__":
    sys.exit(main())
