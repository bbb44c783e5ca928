"""What was warmed needs no compiler afterwards."""

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import numpy as np
from numba.core import event
compiled = []
class Listen(event.Listener):
    def on_start(self, e): compiled.append(str(e.data))
    def on_end(self, e): pass
event.register("numba:compile", Listen())
from patchforest.tree.warm import warm
warm()
first = len(compiled)
from patchforest.tree.cut import cut_forest
from patchforest.tree.gather import gather
from patchforest.values import ForestPolicy
for dtype in (np.uint8, np.uint16, np.float32):
    image = (np.random.default_rng(1).random((300, 500, 3)) * (1 if dtype == np.float32 else 200)).astype(dtype)
    gather(image, cut_forest(image, ForestPolicy(budget=200), window=(0, 1 if dtype == np.float32 else 255)))
print(first, len(compiled) - first)
"""


def test_nothing_is_compiled_after_it(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CODE]
    for _ in range(2):  # the second process finds the machine code of the first
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        before, after = map(int, done.stdout.split())
        assert after == 0
    assert before == 0
