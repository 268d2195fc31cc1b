"""Exceptions whose message is the whole story: the command prints it and shows no traceback."""

import difflib
from collections.abc import Sequence


class InputError(ValueError):
    """Bad input; the message is one sentence that names the file or argument and what was expected. Exit code 2."""


class TrainingDivergedError(RuntimeError):
    """Training met NaN or infinity; the message names the step and the last good checkpoint. Exit code 1."""


class RunsFailedError(RuntimeError):
    """Some runs of a study failed; the message names them, and what became of each. Exit code 1."""


def nearest(name: str, names: Sequence[str]) -> str:
    """'; did you mean ...?' where some name is close, else nothing."""
    close = difflib.get_close_matches(name, names, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
