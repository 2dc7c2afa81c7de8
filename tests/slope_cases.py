"""Models with random slopes on small made-up samples, with dense truth beside them."""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd

import oracle_slopes
from msem.data.reading import group_rows, read_sample
from msem.estimation.estimate import starts
from msem.estimation.matrices import fill_exogenous
from msem.estimation.objective import build_objective
from msem.language.syntax import parse
from msem.model.partable import parameter_table
from msem.settings import Settings

MODELS = {
    # a latent outcome, an outcome that influences nothing, a slope that predicts, a within-only outcome
    "all kinds": """
        level: 1
          fw =~ y1 + y2 + y3
          fw ~ rv("s")*x1 + x3
          y2 ~ rv("t")*x2
        level: 2
          fb =~ y1 + y2
          s ~ w
          z ~ s + w
          fb ~~ s + t
    """,
    # one slope for two outcomes, a covariate that is an outcome itself
    "outcomes as covariates": """
        level: 1
          y1 ~ rv("s")*x1
          y2 ~ rv("s")*x1
          y3 ~ rv("t")*x2 + y1
          x2 ~ x3 + x1
        level: 2
          y1 ~~ y2 + s
          t ~ s
    """,
    "equal designs": """
        level: 1
          y1 ~ rv("s")*time
        level: 2
          y1 ~ w
          y1 ~~ s
    """,
}


def sample(seed=1, nclusters=12):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, nclusters)
    sizes[:4] = 3
    code = np.repeat(np.arange(nclusters), sizes)
    n = len(code)
    frame = pd.DataFrame(rng.normal(size=(n, 6)), columns=["y1", "y2", "y3", "x1", "x2", "x3"])
    frame["x1"] += 2
    frame["time"] = np.concatenate([np.arange(size) for size in sizes]).astype(float)
    frame["x3"] += 0.4 * frame["x1"] + 100
    effects, between = rng.normal(size=(nclusters, 2)), rng.normal(size=(nclusters, 2))
    frame[["w", "z"]] = between[code]
    frame[["y1", "y2", "y3"]] += (frame["x1"].to_numpy() * effects[code, 0])[:, None] + effects[code, 1:] + 5
    frame["id"] = code
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True)


def with_holes(frame, seed=5):
    """A third of the outcomes, all of some units and of some clusters among them."""
    rng = np.random.default_rng(seed)
    out, outcomes = frame.copy(), ["y1", "y2", "y3"]
    out[outcomes] = out[outcomes].mask(rng.random((len(out), 3)) < 0.3)
    out.loc[rng.random(len(out)) < 0.1, outcomes] = np.nan
    out.loc[out["id"] == 3, "y1"] = np.nan
    return out


class Case:
    def __init__(self, name, seed=1, holes=False):
        self.data = with_holes(sample(seed)) if holes else sample(seed)
        settings = Settings.read({"cluster": "id", "missing": "fiml" if holes else "listwise"})
        table = parameter_table(parse(MODELS[name]))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.sample = read_sample(self.data, table, settings, group_rows(self.data, None))
        self.table = fill_exogenous(table, self.sample.levels)
        (self.statistics,) = self.sample.statistics
        # covariates included, as in the dense densities
        self.objective = replace(build_objective(self.table, self.statistics), covariate_llf=0.0)
        rng = np.random.default_rng(seed + 1)
        start = starts(self.objective, self.sample)[0]
        self.near = (
            start + 0.1 * rng.normal(size=len(start)) * np.abs(start) + 0.02 * rng.normal(size=len(start))
        )
        s = self.statistics
        self.roles = list(s.unit), list(s.unit[: s.nboth]), list(s.cluster), "id"
        self.fixed = list(s.unit[len(s.unit) - s.fixed :])
        self.clusters = s.clusters(self.sample.groups[0].rows)

    def logliks(self, theta):
        """Covariates included."""
        return oracle_slopes.logliks(self.table.rows, theta, self.data, *self.roles)

    @functools.cached_property
    def expected(self):
        return oracle_slopes.expected_information(
            self.table.rows, self.near, self.data, *self.roles, self.fixed
        )
