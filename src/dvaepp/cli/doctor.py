"""The command `doctor`: what is installed, what this machine has, and what pays on it."""

from __future__ import annotations

from argparse import Namespace

from dvaepp.runs import doctor as examining
from dvaepp.runs.progress import console


def doctor(_: Namespace) -> None:
    """Lines of what is there, then what was measured, and what follows."""
    for title, found in (
        ("Versions", examining.versions()),
        ("Machine", examining.machine()),
        ("Data sets", examining.data_found()),
    ):
        console.print(title, style="bold")
        for name, value in found.items():
            console.print(f"  {name:24} {value}", markup=False, highlight=False)
    console.print("Speed", style="bold")
    found_speeds = examining.measured()
    for each in found_speeds:
        told = f"{each.one:.2f} ms by one thread, {each.every:.2f} by all, {each.half:.2f} in bfloat16"
        console.print(f"  {each.work}: {told}", highlight=False)
    for line in examining.advice(found_speeds):
        console.print(f"  {line}", highlight=False)
