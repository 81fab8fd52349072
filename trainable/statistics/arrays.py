"""The arrays that statistics are of, by their names."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32] | NDArray[np.float64]
Double = NDArray[np.float64]
Labels = NDArray[np.int64]
