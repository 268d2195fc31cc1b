"""The commands whose files go elsewhere: compress, decompress, export, explore, push."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from dvaepp.cli.outputs import existing, save_arrays
from dvaepp.cli.run_folder import check_output, opened, page_of, used
from dvaepp.errors import InputError
from dvaepp.report.explorer import write_explorer
from dvaepp.runs import export as exporting
from dvaepp.runs.bundle import pushed
from dvaepp.runs.packing import pack, unpack
from dvaepp.runs.progress import console
from dvaepp.storage import check_arrays_name


def compress(arguments: Namespace) -> None:
    """Write examples as the bits that the model takes for them, and say how many these are."""
    check_output(arguments.output, arguments.data)
    path = Path(arguments.output)
    if path.suffix != ".bb":
        raise InputError(f"{path} must end in .bb")
    run = used(arguments)
    examples = run.examples(arguments.data)
    packed = pack(run, examples, path)
    raw = examples.x[0].numel()
    console.print(
        f"wrote {path}: {packed.examples:,} examples, {packed.size:,} bytes, {packed.bits:.2f} bits each of {raw:,} "
        f"(and {packed.start:,} bytes of random bits that the coder begins with)"
    )


def export(arguments: Namespace) -> None:
    """Write a network as ONNX."""
    check_output(arguments.output)
    path = Path(arguments.output)
    if path.suffix != ".onnx":
        raise InputError(f"{path} must end in .onnx")
    exporting.export(used(arguments), path, "decoder" if arguments.decoder else "encoder")
    console.print(f"wrote {path}")


def explore(arguments: Namespace) -> None:
    """Write the page to play with."""
    path = page_of(opened(arguments), arguments.output, "explore.html")
    check_output(str(path))
    if path.suffix not in (".html", ".htm"):
        raise InputError(f"{path} must end in .html")
    write_explorer(used(arguments), path)
    console.print(f"wrote {path}")


def push(arguments: Namespace) -> None:
    """Put a run on the Hub."""
    address = pushed(opened(arguments), arguments.name, arguments.private)
    console.print(f"pushed to {address}", markup=False)


def decompress(arguments: Namespace) -> None:
    """Write the examples of such a file as an array."""
    check_output(arguments.output, arguments.file)
    path = Path(arguments.output)
    check_arrays_name(path)
    save_arrays(path, x=unpack(used(arguments), existing(arguments.file)))
