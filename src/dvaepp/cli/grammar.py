"""What the command line may say; commands.py does the work, and imports torch."""

from __future__ import annotations

import argparse

from dvaepp.cli.options import data_now, model_choice, run_named, seed
from dvaepp.cli.run_grammar import add_uses
from dvaepp.cli.values import draws, jobs, named, positive, threads, whole


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(
        prog="dvaepp",
        description="Variational autoencoders with binary latent variables and Boltzmann-machine priors.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.register("type", None, named)  # the type of arguments that are given none
        return added

    command("list", "data sets, recipes, and what their settings name")

    show = command("show", "a recipe, as JSON that `train` takes back")
    _recipe(show)

    train = command("train", "train a recipe into a new run folder")
    _recipe(train)
    train.add_argument("--seed", type=whole, default=0, help="of weights, batches and noise (default 0)")
    train.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default cpu)")
    train.add_argument("--threads", type=threads, default=1, help="CPU threads (default 1); kept for resume")
    train.add_argument("--data-dir", help="where data sets lie (default: DVAEPP_DATA, then the cache)")
    start = "a run, from whose best weights training begins where they fit this model's"
    train.add_argument("--from", dest="start", metavar="RUN", help=start)
    train.add_argument("--out", help="the run folder (default: runs/RECIPE-SIZE-seedN)")

    speed = command("speed", "what a step takes, compiled or not, in which precision, by how many threads: the fastest")
    _recipe(speed)
    speed.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default cpu)")
    tried = "CPU threads to try, such as 1 2 (default 1)"
    speed.add_argument("--threads", type=threads, nargs="+", default=[1], metavar="N", help=tried)
    speed.add_argument("--seconds", type=positive, default=5, help="of timing each way (default 5)")
    speed.add_argument("--data-dir", help="where data sets lie (default: DVAEPP_DATA, then the cache)")

    resume = command("resume", "go on with a run that was stopped, bit for bit")
    run_named(resume)
    data_now(resume)
    steps = "train on, to so many steps in all, over which schedules stretch"
    resume.add_argument("--steps", type=positive, help=steps)
    resume.add_argument(
        "--device", help="where it goes on: cpu, cuda, ... (default: where it was; else not bit for bit)"
    )

    add_uses(command)

    command("doctor", "what is installed and found here, and which precision and threads pay, by measuring")

    study = command("study", "run what is missing of a grid of recipes, settings and seeds, and show what came of it")
    _study(study)

    compare = command("compare", "results beside each other: settings that differ, mean and spread over seeds")
    compare.add_argument(
        "paths", nargs="+", metavar="PATH", help="runs, results, or folders of them, such as a study's"
    )
    compare.add_argument("--steps-may-differ", action="store_true", help="compare trainings of different lengths too")
    compare.add_argument("-o", "--output", metavar="FILE", help="write it there: .md, .csv, or as a figure .png, .svg")

    gradients = command(
        "gradients", "bias, variance, signal-to-noise and time of every estimator and smoothing on one model and batch"
    )
    _gradients(gradients)

    table = command("table", "results at hand beside the paper's, as Markdown")
    table.add_argument("name", metavar="TABLE", help="1, 2 or 3 of the paper's, or a table's name, such as quick")
    table.add_argument("--results", default="results", metavar="FOLDER", help="where results lie (default: results)")
    table.add_argument("-o", "--output", metavar="FILE", help="write it there")
    check = "score the models of its results again from the run folders under RUNS, and say whether the numbers hold"
    table.add_argument("--check", metavar="RUNS", help=check)
    table.add_argument("--device", help="of --check: cpu, cuda, ... (default: where each run was trained)")

    figure = command("figure", "the paper's figures: about smoothings, as PNG and SVG, or of a convolutional run")
    choices = "figure 1, Concrete's comparison (Appendix C), or figure 4: a row one z ~ p(z), its columns h ~ p(h | z)"
    figure.add_argument("name", choices=["1", "concrete", "4"], help=choices)
    output = ".png, .svg, or no suffix for both (default: figure-NAME); of figure 4 an image (default: figure-4.png)"
    figure.add_argument("-o", "--output", metavar="FILE", help=output)
    figure.add_argument("--run", help="a run folder; figure 4 needs it, and the options below go with it")
    figure.add_argument("--rows", type=positive, help="samples of the prior (default 5)")
    figure.add_argument("--columns", type=positive, help="samples of local variables for each (default 5)")
    model_choice(figure)
    seed(figure)

    data = command("data", "download data sets, or check the files of one")
    data.add_argument("action", choices=["fetch", "check"])
    data.add_argument("name", help="a data set's name (`dvaepp list`)")
    data.add_argument("--data-dir", help="where data sets lie (default: DVAEPP_DATA, then the cache)")
    return top


def _recipe(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", help="a recipe's name (`dvaepp list`), or a recipe.json")
    command.add_argument("--size", choices=["tiny", "small", "medium", "paper"], help="default small")
    command.add_argument("--steps", type=positive, help="training steps; schedules stretch with them")
    command.add_argument("--data", help="another data set by name, or your own file or folder of images")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=VALUE",
        help="change a setting, such as training.l2=0, or choose a component, such as "
        "model.smoothing=power and then model.smoothing.beta=30 (`dvaepp list` names them)",
    )


def _study(command: argparse.ArgumentParser) -> None:
    what = (
        "a recipe's name, a table's (table-2), or a pattern of names; a recipe.json; or a study.json, to go on with it"
    )
    command.add_argument("recipe", metavar="RECIPE", help=what)
    command.add_argument(
        "--cells", metavar="PATTERN", help="of a table those whose names match, such as 'mnist-static/*'"
    )
    command.add_argument("--seeds", help="how many (default 5: from 0 to 4), or which: 3-5 or 0,2")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=V,W",
        help="values of a setting, each of which is run; with several, every combination; component before settings",
    )
    command.add_argument("--size", choices=["tiny", "small", "medium", "paper"], help="default small")
    command.add_argument("--steps", type=positive, help="training steps; schedules stretch with them")
    command.add_argument("--data", help="another data set by name, or your own file or folder of images")
    command.add_argument("--data-dir", help="where data sets lie (default: DVAEPP_DATA, then the cache)")
    command.add_argument("--device", help="of new runs: cpu, cuda, cuda:1, ... (default cpu)")
    command.add_argument("--threads", type=threads, help="CPU threads of each new run (default 1)")
    command.add_argument(
        "--jobs", type=jobs, default=1, metavar="N", help="runs at a time, each in a process (default 1)"
    )
    command.add_argument("--shard", metavar="I/N", help="only every N-th run, from the I-th on: for job arrays")
    command.add_argument("--budget", metavar="HOURS", help="stop cleanly after this time; the same command goes on")
    replicas = "runs of one cell that a process trains at once, where training.compile is true (default 1)"
    command.add_argument("--replicas", type=positive, default=1, metavar="N", help=replicas)
    command.add_argument("--out", metavar="FOLDER", help="the study's folder (default: studies/RECIPE-SIZE)")


def _gradients(command: argparse.ArgumentParser) -> None:
    model = "a recipe's name or a recipe.json, whose model is taken before training; with --checkpoint not needed"
    command.add_argument("recipe", nargs="?", metavar="RECIPE", help=model)
    command.add_argument("--checkpoint", metavar="RUN", help="the trained model of a run folder")
    command.add_argument("--last", action="store_true", help="of the run the last model, not the best by validation")
    command.add_argument("--size", choices=["tiny", "small", "medium", "paper"], help="default small")
    command.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="change a setting")
    command.add_argument("--data", help="another data set or your own file; of a run, where its data lie now, if moved")
    command.add_argument("--data-dir", help="where data sets lie (default: DVAEPP_DATA, then the cache)")
    command.add_argument("--examples", type=positive, default=10, metavar="N", help="of the batch (default 10)")
    command.add_argument("--draws", type=draws, default=500, metavar="N", help="for each example (default 500)")
    only = "methods by label, first word (reinmax, joint) or pattern ('joint*8'; default: all)"
    command.add_argument("--only", nargs="+", action="extend", default=[], metavar="NAME", help=only)
    command.add_argument("--seed", type=whole, default=0, help="of weights, examples and draws (default 0)")
    command.add_argument("--threads", type=threads, default=1, help="CPU threads (default 1); times are of one")
    files = "write it there too: .md, .csv, or variance against bias as .png, .svg; may be given several times"
    command.add_argument("-o", "--output", action="append", default=[], metavar="FILE", help=files)
