"""What the command line may say; commands.py does the work, and imports torch."""

from __future__ import annotations

import argparse

from dvaepp.cli.values import draws, jobs, positive, threads, whole

_RESULTS = "keep the scores there too, as RECIPE/seedN.json, or beside another's as RECIPE/seedN-XXXXXXXX.json"


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(
        prog="dvaepp",
        description="Variational autoencoders with binary latent variables and Boltzmann-machine priors.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    command("list", "data sets, recipes, and what their settings name")

    show = command("show", "a recipe, as JSON that `train` takes back")
    _recipe(show)

    train = command("train", "train a recipe into a new run folder")
    _recipe(train)
    train.add_argument("--seed", type=whole, default=0, help="of weights, batches and noise (default 0)")
    train.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default cpu)")
    train.add_argument("--threads", type=threads, default=1, help="CPU threads (default 1); kept for resume")
    train.add_argument("--data-dir", help="where data sets lie (default: DVAEPP_DATA, then the cache)")
    start = "a run folder, from whose best weights training begins where they fit this model's"
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
    _run(resume)
    _data(resume)
    steps = "train on, to so many steps in all, over which schedules stretch"
    resume.add_argument("--steps", type=positive, help=steps)
    resume.add_argument(
        "--device", help="where it goes on: cpu, cuda, ... (default: where it was; else not bit for bit)"
    )

    evaluate = command("evaluate", "test likelihood of a run in the binary limit, with its uncertainty")
    _run(evaluate)
    _data(evaluate, "where the run's data lie now, if moved; or other data of their form, all of which are scored")
    _model_choice(evaluate)
    _seed(evaluate)
    evaluate.add_argument("--samples", type=positive, help="importance samples per example (default: the recipe's)")
    evaluate.add_argument("--examples", type=positive, help="a random subset of this size (default: the recipe's)")
    evaluate.add_argument("--all", action="store_true", help="all examples, whatever the recipe says")
    evaluate.add_argument("--temperatures", type=positive, help="of annealed importance sampling of log Z")
    evaluate.add_argument("--chains", type=positive, help="of annealed importance sampling of log Z")
    evaluate.add_argument("--quick", action="store_true", help="log Z by annealing alone, not checked in other ways")
    evaluate.add_argument("--split", choices=["test", "valid"], default="test")
    evaluate.add_argument("--megabytes", type=positive, default=64, help="memory for one piece of work (default 64)")
    evaluate.add_argument("--per-example", metavar="FILE", help="write every example's scores: .npz, .csv, .parquet")
    evaluate.add_argument("--results", metavar="FOLDER", help=_RESULTS)

    sample = command(
        "sample",
        "pictures from the prior, a row for each prior sample: its mean, then draws, or of a convolutional run a mean "
        "for each draw of local variables; .npz for arrays; .csv or .parquet for a table of as many draws as rows",
    )
    _run(sample)
    _model_choice(sample)
    _seed(sample)
    _output(sample, "grid.png, samples.npz or table.csv")
    sample.add_argument("--rows", type=positive, default=8)
    sample.add_argument("--columns", type=positive, default=8)
    clamp = "a row of pictures for each line of bits, of which empty cells are free: means given those bits"
    sample.add_argument("--clamp", metavar="FILE.csv", help=clamp)

    encode = command("encode", "codes q(z = 1 | x) of data, group after group, from the likelier bits before")
    _run(encode)
    _data(encode)
    encode.add_argument("data", help="a file, a folder of images, or train, valid or test of the run's data")
    _model_choice(encode)
    _seed(encode)
    _output(encode, "codes.npz, .csv or .parquet")
    local = "local means of a convolutional run too, with which decode gives reconstructions (.npz)"
    encode.add_argument("--local", action="store_true", help=local)
    encode.add_argument("--hard", action="store_true", help="bits instead of probabilities")

    decode = command("decode", "means of p(x | z) of codes that `encode` wrote")
    _run(decode)
    decode.add_argument("codes", help="codes.npz (probabilities are rounded), or .npz, .npy, .csv of bits or spins")
    _model_choice(decode)
    _output(decode, "grid.png or means.npz")

    complete = command("complete", "missing values drawn given those that are there: inpainting, imputation")
    _run(complete)
    _data(complete)
    complete.add_argument(
        "data", help="an image or a folder of them, arrays or a table; NaN and empty cells are missing"
    )
    complete.add_argument("--mask", metavar="FILE", help="a picture that is white where values are missing, or an .npy")
    complete.add_argument("--sweeps", type=positive, default=200, help="of each example's chain (default 200)")
    _model_choice(complete)
    _seed(complete)
    _output(complete, "grid.png (what is there, a draw, the mean), completed.npz or .csv")

    interpolate = command("interpolate", "means of p(x | z) on the way from one example's code to another's")
    _run(interpolate)
    _data(interpolate)
    for place in ("first", "second"):
        interpolate.add_argument(place, help="the number of a test example, from 0, or a file of examples")
    interpolate.add_argument("--steps", type=positive, default=10, help="with both ends (default 10)")
    _model_choice(interpolate)
    _seed(interpolate)
    _output(interpolate, "grid.png or means.npz")

    probe = command("probe", "how well codes tell the data's labels, beside the data and scikit-learn's BernoulliRBM")
    _run(probe)
    _data(probe)
    probe.add_argument("--neighbours", type=positive, default=5, help="that vote (default 5)")
    _model_choice(probe)
    _seed(probe)
    picture = "a picture of test examples and those of train with the nearest codes"
    probe.add_argument("-o", "--output", metavar="FILE", help=picture)

    compress = command("compress", "examples of bits as the bits that the model takes for them, without loss")
    _run(compress)
    _data(compress)
    compress.add_argument("data", help="a file, a folder of images, or train, valid or test of the run's data")
    _model_choice(compress)
    _output(compress, "examples.bb")

    decompress = command("decompress", "the examples of such a file")
    _run(decompress)
    decompress.add_argument("file", help="examples.bb, as compress wrote it with the same model")
    _model_choice(decompress)
    _output(decompress, "examples.npz")

    export = command("export", "the encoder, x to logits of the code, or the decoder as ONNX")
    _run(export)
    export.add_argument("--decoder", action="store_true", help="the decoder, from bits to the mean of p(x | z)")
    _model_choice(export)
    _output(export, "encoder.onnx")

    report = command("report", "one self-contained HTML page about a run")
    _run(report)
    _data(report)
    report.add_argument("-o", "--output", metavar="FILE", help="default: RUN/report.html")

    explore = command("explore", "a page to play with: bits, prior and decoder of a run, computed in the browser")
    _run(explore)
    _data(explore)
    _model_choice(explore)
    explore.add_argument("-o", "--output", metavar="FILE", help="default: RUN/explore.html")

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
    _model_choice(figure)
    _seed(figure)

    prior = command("prior", "a run's Boltzmann machine, for samplers elsewhere: JSON with energies as Ising or QUBO")
    _run(prior)
    _model_choice(prior)
    prior.add_argument("-o", "--output", metavar="FILE", help="such as machine.json")
    samples = "judge samples from elsewhere: their temperature, moments and log Z; a dimod SampleSet too (.csv, .json)"
    prior.add_argument("--samples", metavar="FILE", help=samples)
    prior.add_argument("--form", choices=["ising", "qubo"], default="ising", help="spins -1, 1 or bits 0, 1")

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


def _run(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", help="a run folder")
    command.add_argument(
        "--graph", metavar="FILE.csv", help="where the prior's file of edges lies now, if it was moved"
    )


def _data(command: argparse.ArgumentParser, what: str = "where the run's data lie now, if moved") -> None:
    """Where a run's data lie now; as `data_at`, since `encode` takes other data too."""
    command.add_argument("--data", dest="data_at", metavar="PATH", help=what)
    command.add_argument("--data-dir", help="where data sets lie now (default: as in training)")


def _model_choice(command: argparse.ArgumentParser) -> None:
    command.add_argument("--last", action="store_true", help="the last model, not the best by validation")
    command.add_argument("--device", help="cpu, cuda, ... (default: where the run was trained)")


def _seed(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=whole, default=0, help="of the random draws (default 0)")


def _output(command: argparse.ArgumentParser, example: str) -> None:
    command.add_argument("-o", "--output", required=True, metavar="FILE", help=f"such as {example}")
