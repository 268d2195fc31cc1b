"""Exceptions whose message is the whole story: the command prints it and shows no traceback."""


class InputError(ValueError):
    """Bad input; the message is one sentence that names the file or argument and what was expected. Exit code 2."""


class TrainingDivergedError(RuntimeError):
    """Training met NaN or infinity; the message names the step and the last good checkpoint. Exit code 1."""
