"""Arguments that several commands take."""

from __future__ import annotations

import argparse

from dvaepp.cli.values import whole

RUN = "a run folder, hf://user/name on the Hub, or digits-rbm or digits-dvaepp, which ship with dvaepp"


def run_named(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", help=RUN)
    command.add_argument(
        "--graph", metavar="FILE.csv", help="where the prior's file of edges lies now, if it was moved"
    )


def data_now(command: argparse.ArgumentParser, what: str = "where the run's data lie now, if moved") -> None:
    """Where a run's data lie now; as `data_at`, since `encode` takes other data too."""
    command.add_argument("--data", dest="data_at", metavar="PATH", help=what)
    command.add_argument("--data-dir", help="where data sets lie now (default: as in training)")


def model_choice(command: argparse.ArgumentParser) -> None:
    command.add_argument("--last", action="store_true", help="the last model, not the best by validation")
    command.add_argument("--device", help="cpu, cuda, ... (default: where the run was trained)")


def seed(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=whole, default=0, help="of the random draws (default 0)")


def output(command: argparse.ArgumentParser, example: str) -> None:
    command.add_argument("-o", "--output", required=True, metavar="FILE", help=f"such as {example}")
