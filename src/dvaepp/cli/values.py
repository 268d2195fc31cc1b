"""What arguments take; argparse shows what is wrong with others."""

import argparse
import os


def named(text: str) -> str:
    """A name or a path: what an argument takes that says nothing else."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must name something, and is empty")
    return text


def whole(text: str) -> int:
    """A seed."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2147483647, not {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A count."""
    if not text.isdecimal() or not 1 <= int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 1000000000, not {text!r}")
    return int(text)


def draws(text: str) -> int:
    """How many draws."""
    if not text.isdecimal() or not 10 <= int(text) <= 10**7:
        raise argparse.ArgumentTypeError(f"expected a whole number from 10 to 10000000, not {text!r}")
    return int(text)


def jobs(text: str) -> int:
    """How many processes."""
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"expected a number of processes from 1 to 1024, not {text!r}")
    return int(text)


def threads(text: str) -> int:
    """How many CPU threads."""
    most = os.cpu_count() or 1
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"expected a number of CPU threads from 1 to {most}, not {text!r}")
    return int(text)
