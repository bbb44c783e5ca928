"""The process of one contender: reads it from stdin, does its work in a folder, and prints a line of JSON."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from patchforest.bench.contender import Contender


def main() -> None:
    """``python -m patchforest.bench.worker FOLDER PID``, PID of the bench, with ``Contender.to_json`` on stdin."""
    contender, folder = Contender.from_json(sys.stdin.read()), Path(sys.argv[1])
    threading.Thread(target=end_with, args=(int(sys.argv[2]),), daemon=True).start()
    import cv2
    import torch

    from patchforest.bench.kinds import work_of

    torch.set_num_threads(contender.threads)
    cv2.setNumThreads(contender.threads)
    folder.mkdir(parents=True, exist_ok=True)
    result = work_of(contender.kind)(contender, folder)
    sys.stdout.flush()
    print(json.dumps(result))


def end_with(parent: int) -> None:
    """Ends this process soon after its parent, so that a bench that was killed leaves nothing running."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
