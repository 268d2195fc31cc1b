"""What leaves a run: its RBM to samplers elsewhere and their samples back, its encoder to ONNX, its code to a file.

python examples/elsewhere.py [STEPS]
"""

import json
import subprocess
import sys

import numpy as np
import onnxruntime

import dvaepp


def dvaepp_command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvaepp", *words], check=True)


def main(steps: int = 2000) -> dict[str, float]:
    few = {"model.groups": [16, 16]}  # of a machine of at most 16 bits outside its largest block the code is exact
    run = dvaepp.train("quick/rbm", steps=steps, settings=few, out="run", progress=False)
    dvaepp_command("prior", "run", "-o", "machine.json")
    with open("machine.json") as file:
        machine = json.load(file)
    states = run.model.prior.sample(2000).numpy().astype(int)  # as an annealer would draw them
    np.savetxt("samples.csv", states, fmt="%d", delimiter=",")
    dvaepp_command("prior", "run", "--samples", "samples.csv")
    codes = run.decode(states[:16])

    dvaepp_command("export", "run", "-o", "encoder.onnx")
    images = run.data.test[:200].numpy()
    session = onnxruntime.InferenceSession("encoder.onnx")
    logits = session.run(None, {"x": images.astype(np.float32)})[0]
    same = (logits > 0) == run.encode(images.reshape(-1, *run.shape), hard=True)

    np.save("images.npy", images.reshape(-1, *run.shape))
    dvaepp_command("compress", "run", "images.npy", "-o", "images.bb")
    dvaepp_command("decompress", "run", "images.bb", "-o", "back.npz")
    with open("images.bb", "rb") as file, np.load("back.npz") as back:
        size, exact = len(file.read()), bool((back["x"].reshape(200, -1) == images).all())
    return {
        "variables": len(machine["linear"]),
        "decoded samples": float(codes.mean()),
        "codes of onnxruntime that agree": float(same.mean()),
        "bits an image": 8 * size / len(images),
        "exact": exact,
    }


if __name__ == "__main__":
    for what, value in main(*map(int, sys.argv[1:])).items():
        print(f"{what:32} {value:.3f}")
