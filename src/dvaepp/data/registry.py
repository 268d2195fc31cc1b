"""Data by name or path: load it, describe it, fetch its files, check them."""

from pathlib import Path

from dvaepp.data import download as sources
from dvaepp.data import named
from dvaepp.data.dataset import Dataset
from dvaepp.data.formats import Header
from dvaepp.data.kinds import Plain
from dvaepp.data.own import Binarise, check_options, load_own
from dvaepp.data.pictures import Background
from dvaepp.errors import InputError, nearest

_DYNAMIC = "train binarised on every draw"
_SUMMARIES = {
    "digits": f"28x28, 4,000/500/500, built-in sample of MNIST, {_DYNAMIC}; CC BY-SA 3.0, comes with the package",
    "mnist-static": "28x28, 50,000/10,000/10,000, binarised once by Larochelle; CC BY-SA 3.0, downloads 110 MB",
    "mnist-dynamic": f"28x28, 50,000/10,000/10,000, {_DYNAMIC}; CC BY-SA 3.0, downloads 11 MB",
    "omniglot": f"28x28, 23,000/1,345/8,070, Burda's file, {_DYNAMIC}; MIT, downloads, needs dvaepp[mat]",
    "omniglot-lake": f"28x28, 23,000/1,345/8,070, from Lake's originals, {_DYNAMIC}; MIT, no download, "
    "not comparable with published numbers",
    "caltech101-silhouettes": "28x28, 4,100/2,264/2,307, binary; no stated licence, downloads 1 MB, needs dvaepp[mat]",
    "cifar10": "32x32 in colour, 45,000/5,000/10,000, levels 0..255; no stated licence, downloads 170 MB",
}
NAMES = tuple(_SUMMARIES)


def load(
    name: str,
    data_dir: str | Path | None = None,
    binarise: Binarise = "auto",
    threshold: float = 0.5,
    kind: Plain = "levels",
    background: Background = "white",
    header: Header = "auto",
) -> Dataset:
    """The data set of a name in NAMES, found or downloaded, or the user's own data at a path.

    A path leads to an .npy, .npz, .csv, .amat or idx file or a folder of images. Binary data stay as they are;
    `binarise` makes grey into bits: "auto" and "dynamic" draw train afresh on every use, "threshold" takes
    1[grey > threshold]. "none" leaves numbers as they are, and `kind` says what they are: 8-bit "levels" of images,
    grey or colour, or the "real" numbers, "counts" or "categories" 0, 1, .. of a table. Transparent images are laid
    over the `background`. `header` says whether the first line of a .csv is "present" names of columns or they are
    "absent"; "auto" takes a line for names if some cell is no number, and refuses numbers that may be names.
    InputError for everything that is not as expected.
    """
    check_options(binarise, threshold, kind, background, header)
    if name in NAMES:
        if binarise != "auto":
            raise InputError(f"binarise is {binarise!r} but {name} stands for a fixed protocol, expected auto")
        return named.LOADERS[name](data_dir)
    path = Path(name).expanduser()
    if not name or not path.exists():
        raise InputError(_unknown(name, "a name or an existing path"))
    own = path.resolve().name
    return load_own(path, f"own-{own}" if own in NAMES else own, binarise, threshold, kind, background, header)


def describe(name: str) -> str:
    """One line: size, train/valid/test, protocol, licence and availability."""
    return _SUMMARIES[_known(name)]


def fetch(name: str, data_dir: str | Path | None = None) -> list[Path]:
    """The files of a data set, those missing downloaded; InputError naming file and address when that fails."""
    return [sources.obtain(file, data_dir) for file in sources.files(_known(name), data_dir)]


def check(name: str, data_dir: str | Path | None = None) -> list[tuple[Path, str]]:
    """Each file of a data set with 'ok', 'missing' or 'wrong SHA-256: expected .. got ..'."""
    return [sources.check_file(file, data_dir) for file in sources.files(_known(name), data_dir)]


def _known(name: str) -> str:
    if name not in NAMES:
        raise InputError(_unknown(name, "a data set"))
    return name


def _unknown(name: str, kind: str) -> str:
    return f"{name!r} is not {kind}, expected one of {', '.join(NAMES)}{nearest(name.lower(), NAMES)}"
