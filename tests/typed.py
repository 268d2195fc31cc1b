"""What checks annotations in the tests: beartype, to which a number of numpy's is one, as it is to `numerics`."""

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype

typed = beartype(
    conf=BeartypeConf(hint_overrides=FrozenDict({int: int | np.integer, float: float | int | np.floating | np.integer}))
)
