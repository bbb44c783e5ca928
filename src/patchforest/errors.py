"""The one exception that bad input ends in: the file, what is wrong with it, and what to do."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """A user's file or setting cannot be used.

    ``str(error)`` is one line, ``<path>: <what>; <hint>``, which the command line prints as it is (exit code 3).

    Parameters
    ----------
    path : the file, folder or setting at fault.
    what : what is wrong, with the values seen.
    hint : what to do about it.
    """

    def __init__(self, path: str | Path, what: str, hint: str) -> None:
        self.path, self.what, self.hint = str(path), what, hint
        super().__init__(" ".join(f"{path}: {what}; {hint}".split()))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        return (InputError, (self.path, self.what, self.hint))
