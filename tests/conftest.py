"""Data that many tests use."""

import os

# Tests run in as many processes as there are cores: threads of the linear algebra of NumPy would wait for each other.
# It reads this when it is imported first.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pandas as pd
import pytest

import msem


@pytest.fixture(scope="module")
def demo() -> pd.DataFrame:
    return msem.load_demo()
