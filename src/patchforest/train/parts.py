"""The cases of a run, on both sides of its split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchforest.data.layout import Case
from patchforest.data.manifest import Prepared
from patchforest.data.targets import Targets


@dataclass(frozen=True)
class Parts:
    """The cases of a run, and the items they were prepared as; ``prepared`` None: their images are read.

    ``targets`` are the classes of images; None: masks are learned.
    """

    training: Sequence[Case]
    validation: Sequence[Case]
    prepared: Prepared | None = None
    targets: Targets | None = None
