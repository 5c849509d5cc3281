"""Principal components refuse what their numbers cannot hold."""

import numpy as np
import pytest

from indexer.codes import principal
from tests.indexer.synthetic import features
from training.errors import BadValue


def test_rows_whose_squared_lengths_are_beyond_float32_are_refused() -> None:
    x_ND = features(100)
    components = principal.train(x_ND, 0)
    with pytest.raises(BadValue, match=r"features must be no longer than 2e\+19"):
        components.encode(x_ND * np.float32(1e19))
    with pytest.raises(BadValue, match=r"features must be no longer than 2e\+19"):
        principal.train(x_ND * np.float32(1e19), 0)
