"""``python -m patchforest`` is the ``patchforest`` command."""

import sys

from patchforest.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
