"""Columns of machine types that are rare: used where they have a value, refused with a message where not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import msem
from msem.errors import DataError
from test_summarize import assert_same, sample

MODEL = "level: 1\ny1 ~ y2\nlevel: 2\ny1 ~~ y1"


def lazily(change: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    return change(pl.from_pandas(sample()))


USABLE: dict[str, Callable[[], Any]] = {
    "half precision": lambda: sample().astype({"g": np.float16}),
    "big-endian": lambda: sample().assign(g=lambda d: d["g"].to_numpy().astype(">i4")),
    "big-endian floats": lambda: sample().assign(g=lambda d: d["g"].to_numpy().astype(">f8")),
    "extended precision": lambda: sample().astype({"g": np.longdouble}),
    "128 bits": lambda: lazily(lambda d: d.with_columns(pl.col("g").cast(pl.Int128))),
}


@pytest.mark.parametrize("kind", USABLE)
def test_ids_are_told_apart_whatever_their_machine_type(kind: str) -> None:
    assert_same(msem.summarize(USABLE[kind](), cluster="g"), msem.summarize(sample(), cluster="g"), 0.0)
    expected = msem.sem(MODEL, sample(), cluster="g")
    found = msem.sem(MODEL, USABLE[kind](), cluster="g")
    assert (found.nclusters, found.llf) == (expected.nclusters, expected.llf)


def test_whole_numbers_of_128_bits_are_numbers() -> None:
    frame = lazily(lambda d: d.with_columns((100 * pl.col("y1")).round().cast(pl.Int128)))
    plain = frame.with_columns(pl.col("y1").cast(pl.Float64))
    assert_same(msem.summarize(frame, cluster="g"), msem.summarize(plain, cluster="g"), 0.0)


def test_whole_numbers_beyond_floats_are_refused() -> None:
    frame = sample().assign(y1=pd.Series([10**400] * len(sample()), dtype=object))
    for use in (
        lambda: msem.summarize(frame, cluster="g", variables=["y1", "y2"]),
        lambda: msem.sem(MODEL, frame, cluster="g"),
    ):
        with pytest.raises(DataError, match="'y1' has a whole number that is too large"):
            use()


def test_ids_of_several_values_are_refused() -> None:
    for kind in (pl.struct("g"), pl.concat_list("g")):
        frame = lazily(lambda d, kind=kind: d.with_columns(kind.alias("g")))
        for use in (lambda f: msem.summarize(f, cluster="g"), lambda f: msem.sem(MODEL, f, cluster="g")):
            with pytest.raises(DataError, match="'g' cannot be told apart"):
                use(frame)


def test_arrow_columns_of_one_name_are_refused() -> None:
    table = pa.Table.from_pandas(sample())
    table = table.append_column("y1", table.column("y1"))
    for use in (
        lambda: msem.sem(MODEL, table, cluster="g"),
        lambda: msem.summarize(table, cluster="g"),
        lambda: msem.summarize(table.to_reader(), cluster="g"),
    ):
        with pytest.raises(DataError, match="several columns named 'y1'"):
            use()
