"""Nested two-level models, and data for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import fits
import msem
import texts

SIZES = [4, 6, 9] * 60
FREE = texts.COVARIATE
EQUAL = FREE.replace("y2 + y3", "a*y2 + b*y3")
METHODS = ("standard", "satorra_bentler_2001", "satorra_bentler_2010", "satorra_2000")


def fitted(text: str = FREE, data: pd.DataFrame | None = None, **options: Any) -> msem.Fit:
    return msem.sem(text, fits.data(SIZES) if data is None else data, cluster="cluster", **options)


def skewed(seed: int = 8) -> pd.DataFrame:
    """Two-level data with skewed parts, so that the scaling is not 1."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(120), np.tile([5, 9, 13], 40))
    between, within = rng.exponential(size=(120, 1)) - 1, rng.exponential(size=(len(codes), 1)) - 1
    load = np.array([1.0, 0.8, 0.8, 0.7])
    y = (between @ [load])[codes] + within @ [load]
    y += rng.normal(size=(120, 4))[codes] * 0.4 + rng.exponential(size=y.shape) - 1
    return pd.DataFrame(y, columns=["y1", "y2", "y3", "y4"]).assign(cluster=codes)


PLAIN = """
level: 1
    fw =~ y1 + y2 + y3 + y4
level: 2
    fb =~ y1 + y2 + y3 + y4
"""
RESTRICTED = PLAIN.replace("y1 + y2 + y3 + y4", "y1 + a*y2 + a*y3 + c*y4")


def centred_demo() -> pd.DataFrame:
    """The demonstration data as the stored results of lavaan have them: covariates of units at mean 0."""
    data = msem.load_demo()
    return data.assign(**{name: data[name] - data[name].mean() for name in ("x1", "x2", "x3")})
