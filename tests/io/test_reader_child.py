"""The reading process itself, spoken to through its pipes: the form of its answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from patchforest.io.reader_child import LENGTH
from tests.io.traps import KINDS, PIXELS


def test_every_answer_is_a_header_and_perhaps_pixels(tmp_path: Path) -> None:
    task = {"module": "tests.io.traps", "name": "trapped", "keywords": {}, "path": "a.x"}
    orders = [
        {**task, "memory": 64 << 20, "seconds": 60},
        {"open": True},
        {"read": [0, 80, 120, 4, 5]},
        {"read": [0, KINDS.index("noise"), 129, 90, 1]},
        {"read": [0, KINDS.index("memory"), 0, 1, 1]},
        {"read": [0, KINDS.index("letters"), 0, 1, 1]},
    ]
    ended = subprocess.run(
        [sys.executable, "-c", "from patchforest.io.reader_child import serve; serve()"],
        input="".join(json.dumps(order) + "\n" for order in orders).encode(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    headers, data = [], ended.stdout
    while data:
        length = LENGTH + int.from_bytes(data[:LENGTH], "little")
        headers.append(json.loads(data[LENGTH:length]))
        size = int(np.prod(headers[-1].get("shape", [0])))
        pixels, data = np.frombuffer(data[length : length + size], np.uint8), data[length + size :]
        if size == 60:
            np.testing.assert_array_equal(pixels.reshape(4, 5, 3), PIXELS[80:84, 120:125])
    about = {"levels": [[90, 130]], "channels": 3, "tile": [90, 130]}
    assert headers[0] == {"ready": True, "warnings": []}
    assert headers[1]["about"].items() >= about.items()
    assert headers[2] == {"shape": [4, 5, 3], "dtype": "|u1", "warnings": []}
    assert headers[3]["shape"] == [90, 1, 3]
    assert "0.0625 GiB" in headers[4]["error"]["what"]
    assert headers[5]["error"] == {"path": "a.x", "what": "holds \x1b[31mred\x07", "hint": "see\nhere"}
    assert len(headers) == len(orders)
