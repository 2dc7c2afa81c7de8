"""Models of three levels on small made-up samples, each school as one dense normal density.

Nothing of the likelihood is shared with the package: a school's values are stacked, and their covariance matrix is the
sum over levels of what two of them have in common.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd

import oracle
from msem.data.reading import group_rows, read_sample
from msem.estimation.estimate import starts
from msem.estimation.matrices import fill_exogenous
from msem.estimation.objective import build_objective
from msem.language.syntax import parse
from msem.model.partable import parameter_table
from msem.settings import Settings

CLUSTER = ["school", "class"]
MODELS = {
    # factors at all levels, outcomes and covariates measured on each, a variable that skips level 2, one at 1 only
    "all kinds": """
        level: 1
          fw =~ y1 + y2 + y3
          fw ~ x
          y4 ~ fw
        level: 2
          fc =~ y1 + y2
          fc ~ w
          z ~ fc
          y2 ~~ z
        level: 3
          fs =~ y1 + y2 + y3 + z
          fs ~ v
          t ~ fs
    """,
    "equal shapes": """
        level: 1
          y1 ~~ y1 + y2
          y2 ~~ y2
        level: 2
          y1 ~~ y1 + y2
          y2 ~~ y2
        level: 3
          y1 ~~ y1 + y2
          y2 ~~ y2
    """,
    # what is measured on classes and schools only, and nothing in common of levels 1 and 2
    "nothing in common": """
        level: 1
          y1 ~ x
          y2 ~~ y1
        level: 2
          z ~ w
        level: 3
          t ~ y1 + v
    """,
}


def sample(name="all kinds", seed=1, nschools=6):
    rng = np.random.default_rng(seed)
    equal = name == "equal shapes"
    classes = np.full(nschools, 3) if equal else rng.integers(1, 4, nschools)
    if not equal:
        classes[:2] = 2
    school_of = np.repeat(np.arange(nschools), classes)
    sizes = np.full(len(school_of), 3) if equal else rng.integers(1, 4, len(school_of))
    class_of = np.repeat(np.arange(len(school_of)), sizes)
    units = len(class_of)
    pupil, class_, school = (1.5 * rng.normal(size=(n, 1)) for n in (units, len(school_of), nschools))
    of_class, of_school = (
        rng.normal(size=(len(school_of), 4)) + class_,
        rng.normal(size=(nschools, 4)) + school,
    )
    y = rng.normal(size=(units, 4)) + pupil
    y += (of_class * [1, 1, 0, 0])[class_of] + (of_school * [1, 1, 1, 0])[school_of[class_of]] + [5, 0, -1, 2]
    frame = pd.DataFrame(y, columns=["y1", "y2", "y3", "y4"])
    frame["x"] = rng.normal(size=units) + 3
    frame[["w", "z"]] = rng.normal(size=(len(school_of), 2))[class_of]
    frame["z"] += class_[class_of, 0] + of_school[school_of[class_of], 3]
    frame[["v", "t"]] = rng.normal(size=(nschools, 2))[school_of[class_of]] - 2
    frame["t"] += school[school_of[class_of], 0]
    frame["school"] = school_of[class_of]
    first = np.cumsum(classes) - classes
    frame["class"] = (np.arange(len(school_of)) - first[school_of])[class_of]  # numbered anew in every school
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True)


class Case:
    def __init__(self, name, seed=1, nschools=6, **options):
        self.data = sample(name, seed, nschools)
        settings = Settings.read({"cluster": CLUSTER})
        table = parameter_table(parse(MODELS[name]), **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.sample = read_sample(self.data, table, settings, group_rows(self.data, None))
        self.table = fill_exogenous(table, self.sample.levels)
        self.statistics = self.sample.statistics[0]
        self.clusters = self.sample.clusters[0]
        # covariates included, as in the dense densities
        self.objective = replace(build_objective(self.table, self.sample.statistics), covariate_llf=0.0)
        start = starts(self.objective, self.sample)[0]
        self.near = start + np.random.default_rng(seed).normal(0, 0.03, len(start))
        self.schools = [part for _, part in self.data.groupby("school", sort=False)]

    def moments(self, theta):
        """Names, means and covariance matrices by level."""
        out = []
        for level, names in enumerate(self.table.variables.levels, 1):
            out.append((list(names), *oracle.implied(self.table.rows, theta, level, names)))
        return out

    def stacked(self):
        """The values of each school: each with its variable, its unit and its class, which may be none."""
        measured = self.table.variables.measured
        for part in self.schools:
            part = part.reset_index(drop=True)
            classes, school = part.groupby("class", sort=False).first(), part.iloc[0]
            values = [
                (row[name], name, i, row["class"]) for i, row in part.iterrows() for name in measured[0]
            ]
            values += [(row[name], name, None, c) for c, row in classes.iterrows() for name in measured[1]]
            values += [(school[name], name, None, None) for name in measured[2]]
            yield part, values

    def posterior(self, theta, level, latent):
        """Posterior means and standard deviations of latent variables of a level, by unit, by class, or by school."""
        table, out = self.table, []
        names = [*table.variables.levels[level - 1], *latent]
        mu, sigma = oracle.implied(table.rows, theta, level, names)
        eta = [names.index(name) for name in latent]
        for (part, values), (y, mean, cov) in zip(self.stacked(), self.dense(theta), strict=True):
            inverse = np.linalg.inv(cov)
            keys = {1: list(part.index), 2: list(dict.fromkeys(part["class"])), 3: [None]}[level]
            for key in keys:
                reach = np.zeros((len(eta), len(y)))
                for k, v in enumerate(values):
                    if v[1] in names and (level == 3 or v[level + 1] == key):
                        reach[:, k] = sigma[eta, names.index(v[1])]
                var = sigma[np.ix_(eta, eta)] - reach @ inverse @ reach.T
                out.append(np.append(mu[eta] + reach @ inverse @ (y - mean), np.sqrt(np.diag(var))))
        return np.array(out)

    def dense(self, theta):
        """Values, mean and covariance matrix of each school."""
        levels = self.moments(theta)
        out = []
        for _, values in self.stacked():
            n = len(values)
            mean = np.zeros(n, np.result_type(theta, float))
            cov = np.zeros((n, n), mean.dtype)
            for names, mu, _ in levels:
                at = np.array([names.index(v[1]) if v[1] in names else -1 for v in values])
                mean[at >= 0] += mu[at[at >= 0]]
            unit = np.array([-1 - k if v[2] is None else v[2] for k, v in enumerate(values)])
            group = np.array([-1 - k if v[3] is None else v[3] for k, v in enumerate(values)])
            same = [unit[:, None] == unit, group[:, None] == group, np.ones((n, n), bool)]
            for (names, _, sigma), shared in zip(levels, same, strict=True):
                at = np.array([names.index(v[1]) if v[1] in names else -1 for v in values])
                here = shared & (at[:, None] >= 0) & (at >= 0)
                cov += np.where(here, sigma[at[:, None], at], 0)
            out.append((np.array([v[0] for v in values]), mean, cov))
        return out

    def logliks(self, theta):
        """Log-likelihood of each school, covariates included."""
        return np.array([oracle.normal_logpdf(y[None], mean, cov)[0] for y, mean, cov in self.dense(theta)])

    def expected(self):
        theta, out = self.near, 0
        parts = oracle.complex_step(
            lambda t: np.concatenate([np.append(m, c) for _, m, c in self.dense(t)]), theta
        )
        at = 0
        for y, _, cov in self.dense(theta):
            n = len(y)
            slopes = parts[at : at + n]
            changes = parts[at + n : at + n + n * n].reshape(n, n, -1)
            at += n + n * n
            inverse = np.linalg.inv(cov)
            whole = np.einsum("ij,jka->ika", inverse, changes)
            out = out + slopes.T @ inverse @ slopes + 0.5 * np.einsum("ija,jib->ab", whole, whole)
        return out
