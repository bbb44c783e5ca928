"""A data set of one large image becomes one that can be trained and validated: its upper half trains, the lower half
validates, and no pixel is left out.

    python examples/cut_image.py DATA/swiss_drone DATA/swiss_drone_cut

Without folders it cuts a simulated X-ray slice of a road core into `cut`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from patchforest.bench.sets import cut_image
from patchforest.data.layout import find_cases
from patchforest.data.synthetic import write_dataset


def main() -> None:
    """Cut the image and say which parts came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="folder with images/ and masks/ of one image")
    parser.add_argument("out", nargs="?", default="cut")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(arguments.data or write_dataset(Path(scratch) / "core", "roadcore", 1, (256, 192), seed=1))
        cut = cut_image(data, Path(arguments.out))
    print(f"{cut}: {', '.join(case.id for case in find_cases(cut).cases)}")


if __name__ == "__main__":
    main()
