"""Proves that a run of two ranks behind servers outlives the death of each at any moment.

Starts GRPO of a tiny model under torchrun with two ranks and two servers, kills a server, the second rank
or the first one by SIGKILL at thirteen moments (while weights are pushed, while all wait for answers, when
some have come, while an update is made, when it has been saved), and goes on by the same command each time.
All processes must have ended within a minute, by one line that names who died and one that says how to go
on. In the end every record must be there once, from the weights of its iteration, and every server must
have been given the ranks' weights, to the bit. The servers are stand-ins that wait where a moment asks for
it; `make test-vllm` kills a real one. Exits 1 if anything differs. Takes some ten minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "agents"))

from served_run import Moment, require_line, scene  # noqa: E402
from small_chat import build  # noqa: E402

MOMENTS = (
    Moment("rank 1", "pushes"),
    Moment("server", "pushes"),
    Moment("rank 0", "pushes"),
    Moment("server", "asks"),
    Moment("rank 1", "asks"),
    Moment("rank 0", "asks"),
    Moment("server", "plays"),
    Moment("rank 1", "plays"),
    Moment("rank 0", "plays"),
    Moment("server", "learns"),
    Moment("rank 1", "learns"),
    Moment("rank 0", "learns"),
    Moment("rank 0", "saves"),
)


def main() -> int:
    """Print what was seen; a difference decides the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    fine, iterations = True, len(MOMENTS) + 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with scene(folder, build(folder / "tiny", "qwen2_5_vl"), iterations) as made:
            for number, moment in enumerate(MOMENTS):
                before, started, url = made.done(), time.monotonic(), made.servers[1].url
                told = f"{moment.victim} killed while the run {moment.when}: "
                try:
                    require_line(made.killed(str(number), moment), moment, url)
                    told += f"all had ended, iterations saved {before} -> {made.done()}"
                except AssertionError as error:
                    fine, told = False, f"{told}NOT AS IT SHALL BE: {str(error)[-3000:]}"
                print(f"{told}, {time.monotonic() - started:.0f} s", flush=True)
            try:
                made.finish()
                made.require_whole(iterations)
                given = made.pushed()
            except AssertionError as error:
                print(f"in the end: {str(error)[-3000:]}")
                return 1
    print(f"{iterations} iterations, every record once; versions given to each server: {given}")
    print("nothing lost, nothing double, equal weights" if fine else "a difference: see above")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
