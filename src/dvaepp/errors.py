"""The one exception that means: the input is wrong, and here is what was expected."""


class InputError(ValueError):
    """Bad input from the user; its message is one sentence that names the file or argument and what was expected.

    The command prints the message and exits with code 2; it never shows a traceback for it.
    """
