"""What the command line may say about a run in use."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from dvaepp.cli.options import data_now, model_choice, output, run_named, seed
from dvaepp.cli.values import positive

RESULTS = "keep the scores there too, as RECIPE/seedN.json, or beside another's as RECIPE/seedN-XXXXXXXX.json"


def add_uses(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """The commands that take a run folder and make something of it."""
    evaluate = command("evaluate", "test likelihood of a run in the binary limit, with its uncertainty")
    run_named(evaluate)
    data_now(evaluate, "where the run's data lie now, if moved; or other data of their form, all of which are scored")
    model_choice(evaluate)
    seed(evaluate)
    evaluate.add_argument("--samples", type=positive, help="importance samples per example (default: the recipe's)")
    many = evaluate.add_mutually_exclusive_group()
    many.add_argument("--examples", type=positive, help="a random subset of this size (default: the recipe's)")
    many.add_argument("--all", action="store_true", help="all examples, whatever the recipe says")
    evaluate.add_argument(
        "--temperatures", type=positive, help="of annealing of log Z, and sweeps of its tempering, 1000 or more"
    )
    evaluate.add_argument("--chains", type=positive, help="of annealing of log Z")
    evaluate.add_argument("--quick", action="store_true", help="log Z by annealing alone, not checked in other ways")
    evaluate.add_argument("--split", choices=["test", "valid"], default="test")
    evaluate.add_argument("--megabytes", type=positive, default=64, help="memory for one piece of work (default 64)")
    evaluate.add_argument("--per-example", metavar="FILE", help="write every example's scores: .npz, .csv, .parquet")
    evaluate.add_argument("--results", metavar="FOLDER", help=RESULTS)

    sample = command(
        "sample",
        "pictures from the prior, a row for each prior sample: its mean, then draws, or of a convolutional run a mean "
        "for each draw of local variables; .npz for arrays; .csv or .parquet for a table of as many draws as rows",
    )
    run_named(sample)
    model_choice(sample)
    seed(sample)
    output(sample, "grid.png, samples.npz or table.csv")
    sample.add_argument("--rows", type=positive, default=8)
    sample.add_argument("--columns", type=positive, default=8)
    clamp = "a row of pictures for each line of bits, of which empty cells are free: means given those bits"
    sample.add_argument("--clamp", metavar="FILE.csv", help=clamp)

    encode = command("encode", "codes q(z = 1 | x) of data, group after group, from the likelier bits before")
    run_named(encode)
    data_now(encode)
    encode.add_argument("data", help="a file, a folder of images, or train, valid or test of the run's data")
    model_choice(encode)
    seed(encode)
    output(encode, "codes.npz, .csv or .parquet")
    local = "local means of a convolutional run too, coarse groups first; decode makes reconstructions of them (.npz)"
    encode.add_argument("--local", action="store_true", help=local)
    encode.add_argument("--hard", action="store_true", help="bits instead of probabilities")

    decode = command("decode", "means of p(x | z) of codes that `encode` wrote")
    run_named(decode)
    decode.add_argument("codes", help="codes.npz (probabilities are rounded), or .npz, .npy, .csv of bits or spins")
    model_choice(decode)
    output(decode, "grid.png or means.npz")

    complete = command("complete", "missing values drawn given those that are there: inpainting, imputation")
    run_named(complete)
    data_now(complete)
    complete.add_argument(
        "data", help="an image or a folder of them, arrays or a table; NaN and empty cells are missing"
    )
    complete.add_argument("--mask", metavar="FILE", help="a picture that is white where values are missing, or an .npy")
    complete.add_argument("--sweeps", type=positive, default=200, help="of each example's chain (default 200)")
    model_choice(complete)
    seed(complete)
    output(complete, "grid.png (what is there, a draw, the mean), completed.npz or .csv")

    interpolate = command("interpolate", "means of p(x | z) on the way from one example's code to another's")
    run_named(interpolate)
    data_now(interpolate)
    for place in ("first", "second"):
        interpolate.add_argument(place, help="the number of a test example, from 0, or a file of examples")
    interpolate.add_argument("--steps", type=positive, default=10, help="with both ends (default 10)")
    model_choice(interpolate)
    seed(interpolate)
    output(interpolate, "grid.png or means.npz")

    probe = command("probe", "how well codes tell the data's labels, beside the data and scikit-learn's BernoulliRBM")
    run_named(probe)
    data_now(probe)
    probe.add_argument("--neighbours", type=positive, default=5, help="that vote (default 5)")
    model_choice(probe)
    seed(probe)
    picture = "a picture of test examples and those of train with the nearest codes"
    probe.add_argument("-o", "--output", metavar="FILE", help=picture)

    compress = command("compress", "examples of bits as the bits that the model takes for them, without loss")
    run_named(compress)
    data_now(compress)
    compress.add_argument("data", help="a file, a folder of images, or train, valid or test of the run's data")
    model_choice(compress)
    output(compress, "examples.bb")

    decompress = command("decompress", "the examples of such a file")
    run_named(decompress)
    decompress.add_argument("file", help="examples.bb, as compress wrote it with the same model")
    model_choice(decompress)
    output(decompress, "examples.npz")

    export = command("export", "the encoder, x to logits of the code, or the decoder as ONNX")
    run_named(export)
    export.add_argument("--decoder", action="store_true", help="the decoder, from bits to the mean of p(x | z)")
    model_choice(export)
    output(export, "encoder.onnx")

    push = command("push", "put a run on the Hugging Face Hub: its best model, scores and a card; no data")
    run_named(push)
    push.add_argument("name", metavar="USER/NAME", help="the repository, made where it is not there")
    push.add_argument("--private", action="store_true", help="a new repository is for you alone")

    report = command("report", "one self-contained HTML page about a run")
    run_named(report)
    data_now(report)
    report.add_argument("-o", "--output", metavar="FILE", help="default: RUN/report.html")

    explore = command("explore", "a page to play with: bits, prior and decoder of a run, computed in the browser")
    run_named(explore)
    data_now(explore)
    model_choice(explore)
    explore.add_argument("-o", "--output", metavar="FILE", help="default: RUN/explore.html")

    prior = command("prior", "a run's Boltzmann machine, for samplers elsewhere: JSON with energies as Ising or QUBO")
    run_named(prior)
    model_choice(prior)
    prior.add_argument("-o", "--output", metavar="FILE", help="such as machine.json")
    samples = "judge samples from elsewhere: their temperature, moments and log Z; a dimod SampleSet too (.csv, .json)"
    prior.add_argument("--samples", metavar="FILE", help=samples)
    prior.add_argument("--form", choices=["ising", "qubo"], default="ising", help="spins -1, 1 or bits 0, 1")
