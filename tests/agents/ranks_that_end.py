"""What the ranks of `test_ranks` do: started by torchrun with the name of a job, and a folder."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from weakref import WeakMethod

from agents.training import ranks
from agents.training.command import interruptible
from agents.training.interruption import Interruption


class Run:
    """Has nothing that could be saved at once."""

    def save_now(self) -> bool:
        """Not."""
        return False


def die() -> None:
    """The first of four is killed: one asks again and again, one waits for all others, one is busy."""
    run, alarm = Run(), ranks.Alarm()
    Interruption(WeakMethod(run.save_now)).watch()
    ranks.all_gather_object(None)
    if ranks.rank() == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    while ranks.rank() == 1:
        alarm.heard()
    if ranks.rank() == 2:
        ranks.all_gather_object(None)
    time.sleep(60)


def agree(folder: Path) -> None:
    """An alarm is heard by all, until all have said that it is over, then the next; tasks are compared."""
    alarm = ranks.Alarm()
    for teller, why in ((1, "a server died"), (0, "another died"), (0, "")):
        ranks.all_gather_object(None)
        if why and ranks.rank() == teller:
            alarm.tell(why)
        ranks.all_gather_object(None)
        assert alarm.heard() == why, alarm.heard()
        ranks.all_gather_object(None)
        alarm.end()
        assert not alarm.heard()
    from agents.vlm.rollouts import require_same_tasks  # which takes seconds
    from videogym.datasets import load_tasks

    same = "procedural:brief_event?level=0&duration_s=60&count=40"
    require_same_tasks("eval_tasks", load_tasks(f"{same}&split=val"))
    try:
        require_same_tasks("tasks", load_tasks(folder / f"{ranks.rank()}.jsonl"))
    except ranks.RanksDisagree as error:
        ranks.exit_together(2, str(error))


def write() -> None:
    """The first fails at what it alone does at the end, when the other has long been done."""
    if ranks.rank() == 0:
        time.sleep(10)
        raise RuntimeError("the model cannot be written")
    ranks.destroy_process_group()


if __name__ == "__main__":
    ranks.init_distributed("cpu")
    with interruptible(lambda: "Seven iterations are saved."):
        if sys.argv[1] == "die":
            die()
        if sys.argv[1] == "write":
            write()
        agree(Path(sys.argv[2]))
