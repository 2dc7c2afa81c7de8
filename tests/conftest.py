"""Data that many tests use."""

import pandas as pd
import pytest

import msem


@pytest.fixture(scope="module")
def demo() -> pd.DataFrame:
    return msem.load_demo()
