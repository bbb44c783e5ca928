"""One model on one data set with one seed: the unit of work of every bench, done in a process of its own."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Contender:
    """What is to be trained or measured.

    Attributes
    ----------
    kind : of bench, a key of ``bench.kinds.KINDS``, or ``tune``.
    set : name of the data set, or of what stands in its place.
    name : of the model as users know it, e.g. ``U-Net 2x``.
    changes : settings of the recipe that are changed, in their order, e.g. ``("model.name=unet",)``; a kind without
        recipes reads them in its own way.
    recipe, data : a training recipe and its data folder, as text; empty where the kind needs none.
    digest : of the recipe's content, so that another content is other work.
    scorer : settings of the recipe that are changed for a scorer, which is trained first and cuts the forests; empty
        where forests are cut as the recipe says.
    """

    kind: str
    set: str
    name: str
    changes: tuple[str, ...] = ()
    seed: int = 0
    recipe: str = ""
    data: str = ""
    digest: str = ""
    threads: int = 1
    scorer: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A short text that is the same only for contenders that do the same work, and a name for a folder."""
        digest = hashlib.sha256(self.to_json().encode()).hexdigest()[:8]
        return "/".join((self.kind, _plain(self.set), f"{_plain(self.name)}-{self.seed}-{digest}"))

    @property
    def title(self) -> str:
        """For lines of progress."""
        return f"{self.set}, {self.name}, seed {self.seed}"

    def folder(self, out: Path) -> Path:
        """Where it leaves its files; the same for the same work."""
        return out / "runs" / self.key

    def to_json(self) -> str:
        """One line; ``from_json`` is the inverse."""
        told = asdict(self)
        if not self.scorer:
            del told["scorer"]
        return json.dumps(told, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Contender:
        """The contender that ``to_json`` wrote."""
        raw: dict[str, Any] = json.loads(text)
        return cls(**{**raw, **{name: tuple(raw.get(name, ())) for name in ("changes", "scorer")}})


def _plain(name: str) -> str:
    """A name in letters that every file system takes."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
