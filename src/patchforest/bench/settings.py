"""What a bench was asked to do, and the command that asks for it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from pathlib import Path

from patchforest.errors import InputError

BUDGETS = ("cpu_minutes", "minutes", "steps")
_REPEATED = {"contenders": "contender", "changes": "set"}


@dataclass(frozen=True)
class Settings:
    """The options of ``patchforest bench``; every kind reads those that its ``Kind.options`` name.

    Attributes
    ----------
    data : folder that holds a folder for each data set.
    out : folder for runs, results and note.
    recipes : folder of training recipes, SET.yaml each.
    sets, contenders : names; no contenders: all of the kind.
    cpu_minutes, minutes, steps : of training for every contender, one of them: CPU time of its process, or wall time.
    jobs, threads : contenders at a time, and threads for each.
    rates : learning rates that tuning tries.
    tune : choose a learning rate for every contender and stop.
    full : sizes of the papers, for a GPU, instead of the small form.
    changes : settings of the recipes, changed for every contender.
    """

    data: Path
    out: Path
    recipes: Path = Path("recipes")
    sets: tuple[str, ...] = ()
    contenders: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0, 1)
    cpu_minutes: float | None = None
    minutes: float | None = None
    steps: int | None = None
    jobs: int = 1
    threads: int = 1
    rates: tuple[float, ...] = (1e-3, 3e-3)
    tune: bool = False
    full: bool = False
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = [n for n in BUDGETS if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of cpu_minutes, minutes and steps; got {', '.join(given)}")
        if self.jobs < 1 or self.threads < 1:
            raise ValueError(f"jobs and threads must be at least 1; got {self.jobs}, {self.threads}")
        if not self.seeds:
            raise ValueError("give at least one seed")

    def budget(self, cpu_minutes: float, *, share: float = 1.0) -> str:
        """A share of the budget as a change of a recipe.

        Where none was given so many CPU minutes, or, in full form, which is for GPUs, as many minutes of wall time.
        """
        given = next((n for n in BUDGETS if getattr(self, n) is not None), "minutes" if self.full else "cpu_minutes")
        amount = getattr(self, given)
        amount = share * (cpu_minutes if amount is None else amount)
        return f"train.max_{given}={max(1, round(amount)) if given == 'steps' else amount}"

    def recipe(self, name: str) -> Path:
        """The file of a recipe.

        Raises
        ------
        InputError : there is none.
        """
        path = self.recipes / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in self.recipes.glob("*.yaml"))) or "none"
            raise InputError(path, "there is no such recipe", f"--recipes names their folder; it holds {known}")
        return path

    def command(self, kind: str) -> str:
        """The command line, without the places of one machine."""
        words = ["patchforest", "bench", kind, "--data", "DATA", "--out", "OUT"]
        default = Settings(Path(), Path())
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("data", "out", "recipes") or value == getattr(default, field.name):
                continue
            option = f"--{_REPEATED.get(field.name, field.name).replace('_', '-')}"
            if field.name in _REPEATED:
                words += [word for item in value for word in (option, item)]
            elif value is True:
                words.append(option)
            else:
                values = value if isinstance(value, tuple) else (value,)
                words += [option, ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)]
        return shlex.join(words)
