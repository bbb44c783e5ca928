"""The classes of many images: one table, a line an image; a bad image is listed and the rest goes on."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from patchforest.errors import InputError
from patchforest.infer.classify import ClassPrediction, classify
from patchforest.infer.inputs import name_inputs
from patchforest.io.atomic import write_text
from patchforest.io.open import open_image
from patchforest.io.scale import AS_STORED, Scale, at_scale
from patchforest.models.bundle import Bundle
from patchforest.values import ImageSource

TABLE = "classes.csv"
_FIRST = ["id", "file", "class"]


@dataclass(frozen=True)
class ClassRun:
    """What became of every input, by id: its class and probabilities, or the reason in one line."""

    told: dict[str, ClassPrediction] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    table: Path = Path(TABLE)
    seconds: float = 0.0


def classify_many(
    bundle: Bundle,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    scale: Scale = AS_STORED,
    shard: tuple[int, int] = (1, 1),
    trees: int = 1,
    flips: bool = False,
    precision: str = "fp32",
    overwrite: bool = False,
    open_source: Callable[[Path], ImageSource] = open_image,
    tell: Callable[[str], None] = lambda line: None,
) -> ClassRun:
    """Write ``out/classes.csv``: id, file, class and the probability of every class (``p_NAME``) of every input.

    The table is whole or absent, and written anew each time; that of a shard is ``classes-I-of-N.csv``.

    Parameters
    ----------
    inputs : image files and folders of them.
    shard : (i, n): only every n-th input from the i-th on, 1 ≤ i ≤ n.
    overwrite : also replace a file of that name that is no such table.
    others : of ``infer.classify.classify`` and ``io.scale.at_scale``.

    Raises
    ------
    InputError : no input, or a file of the table's name that is none.
    """
    start, classes = time.perf_counter(), bundle.spec.classes
    name = TABLE if shard[1] == 1 else f"classes-{shard[0]}-of-{shard[1]}.csv"
    table = Path(out) / name
    if not overwrite and table.exists() and not _is_ours(table):
        raise InputError(table, "was not written by `predict`", "choose another folder, or give --overwrite")
    named = dict(list(name_inputs(inputs, skip=Path(out)).items())[shard[0] - 1 :: shard[1]])
    told: dict[str, ClassPrediction] = {}
    failed: dict[str, str] = {}
    for number, (identity, path) in enumerate(named.items(), 1):
        try:
            view = at_scale(open_source(path), scale, path)
            told[identity] = said = classify(bundle, view, trees=trees, flips=flips, precision=precision)
        except InputError as error:
            wrong = error if error.path == str(path) else InputError(path, error.what, error.hint)
            failed[identity] = str(wrong)
        except (OSError, MemoryError) as error:
            failed[identity] = f"{path}: {error or type(error).__name__}"
        else:
            best = int(said.probability.argmax())
            tell(f"[{number}/{len(named)}] {identity}: {classes[best]} ({said.probability[best]:.3f})")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_FIRST, *(f"p_{c}" for c in classes)])
    for identity, said in told.items():
        best = int(said.probability.argmax())
        writer.writerow([identity, named[identity], classes[best], *(f"{p:.6f}" for p in said.probability)])
    write_text(table, text.getvalue())
    return ClassRun(told, failed, table, time.perf_counter() - start)


def _is_ours(path: Path) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline().startswith(",".join(_FIRST) + ",p_")
