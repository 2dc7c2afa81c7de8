"""Small samples with ordered variables, in whose likelihoods integrals are few enough for dense rules."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pandas as pd

import oracle_integrals
from msem.data.reading import read_sample
from msem.estimation.matrices import fill_exogenous
from msem.estimation.objective import build_objective
from msem.fits.categories import ordered_of, with_categories
from msem.fits.sem import table_of
from msem.language.syntax import parse
from msem.settings import Settings

VALUES = {"=~": 0.9, "~": 0.3, "|": 0.0, "~1": 0.2}  # of parameters, near which derivatives are taken
ITEMS = ("y1", "y2", "y3", "y4")
FACTORS = """
level: 1
  fw =~ y1 + y2 + y3 + y4
level: 2
  fb =~ y1 + y2 + y3 + y4
  y1 ~~ 0*y1
  y2 ~~ 0*y2
  y3 ~~ 0*y3
  y4 ~~ 0*y4
"""
MODELS = {
    "factors": (FACTORS, ITEMS, {}),
    "factors, logit, holes": (FACTORS, ITEMS, {"link": "logit", "missing": "fiml"}),
    "covariates": (
        """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x
  y2 ~ x
level: 2
  fb =~ y1 + y2 + y3
  y1 ~~ 0*y1
  y2 ~~ 0*y2
  y3 ~~ 0*y3
  fb ~ w
  y3 ~ w
""",
        ("y1", "y2", "y3"),
        {},
    ),
    "random slope": (
        'level: 1\n  y3 ~ rv("s")*x\nlevel: 2\n  y3 ~ w\n  s ~ w\n  y3 ~~ s\n',
        ("y3",),
        {},
    ),
    "beside continuous": (
        """
level: 1
  fw =~ y1 + y3 + c
  y1 ~ x
level: 2
  y1 ~~ c
  y3 ~~ 0*y3
  z ~ y1 + w
""",
        ("y1", "y3"),
        {},
    ),
    "slope of a factor": (
        """
level: 1
  fw =~ y1 + y2 + y3
  y4 ~ rv("s")*fw
level: 2
  y1 ~~ 0*y1
  y2 ~~ 0*y2
  y3 ~~ 0*y3
  y4 ~~ 0*y4
  s ~ w
""",
        ITEMS,
        {},
    ),
    "two factors within": (
        """
level: 1
  f =~ y1 + y2
  h =~ y3 + y4
level: 2
  y1 ~~ y1
  y2 ~~ 0*y2
  y3 ~~ 0*y3
  y4 ~~ 0*y4
""",
        ITEMS,
        {},
    ),
}


# of one level, which the dense rules are not made for
OF_ROWS = {"one level": ("f =~ y1 + y2 + y3 + y4", ITEMS, {"cluster": None})}


@functools.cache
def sample(nclusters=4, size=4, seed=4):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(nclusters), size)
    fb, fw = rng.normal(size=nclusters) * 0.7, rng.normal(size=len(g))
    w, x = rng.normal(size=nclusters), rng.normal(size=len(g))
    frame = {"g": g, "x": x, "w": w[g], "z": (0.5 * fb + rng.normal(size=nclusters))[g]}
    frame["c"] = fw + 0.5 * rng.normal(size=len(g)) + 0.3 * w[g]
    slope = 0.5 + 0.5 * rng.normal(size=nclusters)
    for k in range(4):
        y = (0.8 + 0.1 * k) * fb[g] + (1 + 0.1 * k) * fw + rng.normal(size=len(g)) + 0.3 * w[g]
        if k == 2:
            y = y + slope[g] * x
        frame[f"y{k + 1}"] = np.digitize(y, [-0.6, 0.7] if k == 2 else [0.2 * k - 0.3]).astype(float)
    data = pd.DataFrame(frame)
    order = rng.permutation(len(data))
    return data.iloc[order].reset_index(drop=True)


def ordered_settings(**options):
    return Settings.read(
        {"cluster": "g", "ordered": ("y1", "y3"), "estimator": "ML", **options}
    ).for_ordered()


NODES = {"random slope": 9, "beside continuous": 9, "two factors within": 17}  # two dimensions


class Case:
    """A model of a small sample near its starting values, with what the dense truth needs."""

    def __init__(self, name):
        text, ordered, options = (MODELS | OF_ROWS)[name]
        data = sample()
        self.logit = options.get("link") == "logit"
        if "missing" in options:
            holes = np.random.default_rng(1).uniform(size=(len(data), len(ordered))) < 0.25
            data = data.assign(**{n: data[n].mask(holes[:, k]) for k, n in enumerate(ordered)})
        settings = Settings.read(
            {"cluster": "g", "ordered": ordered, "estimator": "ML", "nodes": NODES.get(name, 23), **options}
        )
        syntax = parse(text)
        columns = ordered_of(syntax, data, settings)
        settings = settings.for_ordered()
        table = table_of(syntax, "sem", settings, None, columns.thresholds)
        plain = read_sample(columns.data, table, settings)
        self.sample = with_categories(plain, table, columns.categories, settings)
        self.table = fill_exogenous(table, self.sample.levels)
        (self.statistics,) = self.sample.statistics
        self.objective = replace(build_objective(self.table, self.statistics), covariate_llf=0.0)
        self.near = np.zeros(self.table.npar)
        rng = np.random.default_rng(3)
        for row in self.table.rows:
            if row.free:
                usual = 0.6 if row.op == "~~" and row.lhs == row.rhs else VALUES.get(row.op, 0.1)
                shift = 0.9 * (int(row.rhs[1:]) - 1) - 0.4 if row.op == "|" else 0.0
                self.near[row.free - 1] = usual + shift + 0.1 * rng.uniform(-1, 1)
        (self.clusters,) = self.sample.clusters
        data = columns.data
        s = self.statistics
        if any(text in name for text in ("holes",)):
            data = data[data[list(ordered)].notna().any(axis=1)]
        self.data, self.ordered = data, ordered
        self.roles = list(s.unit), list(s.unit[: s.nboth]), list(s.cluster)

    def truth(self, theta, points=(61, 61)):
        return oracle_integrals.logliks(
            self.table.rows, theta, self.data, *self.roles, self.ordered, "g", self.logit, points
        )


@functools.cache
def case(name):
    return Case(name)
