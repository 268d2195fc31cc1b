"""The command `dvaepp`."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Sequence

from dvaepp.cli.grammar import parser
from dvaepp.errors import InputError, RunsFailedError, TrainingDivergedError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Exit code 0, 2 for bad input, 1 for trainings that failed, 130 when interrupted."""
    parsed = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        from dvaepp.cli.commands import run

        parsed.command_line = shlex.join(["dvaepp", *(sys.argv[1:] if arguments is None else arguments)])
        run(parsed)
    except (RunsFailedError, TrainingDivergedError) as error:
        print(f"dvaepp: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (InputError, OSError) as error:
        print(f"dvaepp: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        print("dvaepp: there is not enough memory for these settings", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dvaepp: interrupted", file=sys.stderr)
        return 130
    return 0
