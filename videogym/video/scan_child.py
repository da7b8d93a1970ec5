"""The process in which files are opened for the first time, and may hang, crash or ask for any memory.

Requests are lines of JSON on stdin; an answer on stdout is a line of JSON, then as many bytes as it says:
the arrays of a packet table. Ends when stdin does, when nobody asks for a while, and by itself when
a scan takes too long.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import json
import os
import select
import sys
import traceback
import types
from pathlib import Path
from typing import Any, BinaryIO

_IDLE_S = 60.0
_GRACE_S = 5.0  # ours ends itself so long after the parent should have killed it


def main() -> None:
    """Serve requests until stdin ends."""
    _bare_packages()
    from videogym.video.scan import scan  # noqa: F401  loaded before memory is limited

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit_memory(int(sys.argv[1]))
    _answer(answers, {})
    requests = open(0, "rb", buffering=0, closefd=False)
    while select.select([requests], [], [], _IDLE_S)[0]:
        line = requests.readline()
        if not line:
            return
        request = json.loads(line)
        # The parent may be dead by the time it should kill us; this works without the interpreter's lock.
        faulthandler.dump_traceback_later(request["deadline_s"] + _GRACE_S, exit=True)
        _answer(answers, *_scanned(request["path"]))
        faulthandler.cancel_dump_traceback_later()


def _bare_packages() -> None:
    """Stand-ins for the two packages, whose own modules would load much that is of no use here."""
    here = Path(__file__).parent
    for name, folder in (("videogym", here.parent), ("videogym.video", here)):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package


def _limit_memory(more: int) -> None:
    """Bound what may be allocated from now on, in bytes."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # a system without, or a lower limit
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _scanned(path: str) -> tuple[dict[str, Any], bytes]:
    from videogym.video.packets import pack_table
    from videogym.video.scan import scan
    from videogym.video.types import VideoError

    try:
        facts, arrays = pack_table(scan(path))
        return {"table": facts}, arrays
    except VideoError as error:
        if getattr(error.__cause__, "errno", None) == errno.ENOMEM:
            return {"error": "MemoryError"}, b""
        return {"error": type(error).__name__, "message": str(error)}, b""
    except MemoryError:
        return {"error": "MemoryError"}, b""
    except Exception:  # a fault of ours, which the parent raises with this traceback
        return {"fault": traceback.format_exc()}, b""


def _answer(answers: BinaryIO, fields: dict[str, Any], body: bytes = b"") -> None:
    answers.write(json.dumps(fields | {"bytes": len(body)}).encode() + b"\n")
    answers.write(body)
    answers.flush()


if __name__ == "__main__":
    main()
