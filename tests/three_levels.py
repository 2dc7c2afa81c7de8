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
    # slopes of units that vary at both levels above, or one; of classes, on outcomes and on a slope; into a factor
    "slopes": """
        level: 1
          fw =~ y1 + y2
          fw ~ rv("s")*x
          y3 ~ rv("r")*x + fw
          y4 ~ y3
        level: 2
          y1 ~~ y1 + s
          y3 ~ rv("b")*w
          s ~ rv("c")*w + z
          z ~ w
        level: 3
          y1 ~~ y1 + s + r + b
          y2 ~~ y2
          y3 ~~ y3
          s ~ v
          c ~~ 0.3*c
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


def with_holes(frame, seed=1):
    """Values missing at every level, in single units, whole units and whole classes; covariates are complete."""
    rng = np.random.default_rng(seed)
    out = frame.copy()
    names = [name for name in ("y1", "y2", "y3", "y4") if name in out]
    holes = rng.random((len(out), len(names))) < 0.25
    holes[rng.random(len(out)) < 0.1] = True
    both = out["school"] * 100 + out["class"]
    classes, schools = both.unique(), out["school"].unique()
    holes[both == classes[2]] = True  # nothing of its units
    holes[both == classes[4], 0] = True
    out[names] = out[names].mask(holes)
    out.loc[both.isin(classes[1::4]), "z"] = np.nan
    out.loc[out["school"].isin(schools[1::4]), "t"] = np.nan
    out["z"] = out["z"].mask(out.duplicated(["school", "class"]))  # known of one unit of each class
    return out


WEIGHTS = {"weights": "w1", "cluster_weights": ["w3", "w2"], "weights_scale": "none"}


def with_weights(frame, seed=1):
    """Whole weights of units in their class, of classes in their school, and of schools."""
    rng = np.random.default_rng(seed)
    of_class, of_school = rng.integers(1, 3, 1000), rng.integers(1, 4, 1000)
    number = pd.factorize(frame["school"] * 100 + frame["class"])[0]
    return frame.assign(
        w1=rng.integers(1, 3, len(frame)).astype(float),
        w2=of_class[number].astype(float),
        w3=of_school[pd.factorize(frame["school"])[0]].astype(float),
    )


def repeated(frame, schools=True):
    """The same data without weights: units, classes and, if asked for, schools as often as they count."""
    parts = []
    for (school, name), part in frame.groupby(["school", "class"], sort=False):
        rows = part.loc[part.index.repeat(part["w1"].astype(int))]
        for copy in range(int(part["w3"].iloc[0]) if schools else 1):
            parts += [
                rows.assign(school=1000 * copy + school, **{"class": 100 * again + name})
                for again in range(int(part["w2"].iloc[0]))
            ]
    return pd.concat(parts, ignore_index=True)


class Case:
    counts = 1.0  # how often each school counts

    def __init__(self, name, seed=1, nschools=6, *, holes=False, weights=False, **options):
        self.data = sample(name, seed, nschools)
        if holes:
            self.data = with_holes(self.data, seed)
        given = {"cluster": CLUSTER} | ({"missing": "fiml"} if holes else {})
        if weights:
            self.data, given = with_weights(self.data, seed), given | WEIGHTS
        settings = Settings.read(given)
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
        whole = repeated(self.data, schools=False) if weights else self.data
        self.schools = [part for _, part in whole.groupby("school", sort=False)]
        if weights:
            self.counts = np.array([part["w3"].iloc[0] for part in self.schools])
            self.counts /= self.counts.mean()
        self.designs = {}  # covariates of the values of each school

    def moments(self, theta):
        """Names, means and covariance matrices by level, and what slopes do to these variables."""
        out, slopes = [], self.table.slopes()
        for level, own in enumerate(self.table.variables.levels, 1):
            names = [*own, *(slope.name for slope in slopes if level in slope.at)]
            rows = [row for row in self.table.rows if not row.slope]
            mean, cov = oracle.implied(rows, theta, level, names)
            reach = {}
            for slope in slopes:
                if slope.level == level:
                    # what a shift of the outcomes does: the mean of a model with nothing but these intercepts
                    shifted = [
                        *(r for r in rows if r.op != "~1" and r.level == level),
                        *(
                            self.table.rows[0]._replace(
                                lhs=name, op="~1", rhs="", level=level, free=0, value=1.0
                            )
                            for name in slope.outcomes
                        ),
                    ]
                    reach[slope.name] = oracle.implied(shifted, theta, level, names)[0]
            out.append((names, mean, cov, reach))
        return out

    def loadings(self, levels, values, frame):
        """What every variable of every level, slopes included, adds to the values of a school: (values, variables)."""
        slopes = {slope.name: slope for slope in self.table.slopes()}
        kind = np.result_type(*(cov for _, _, cov, _ in levels))
        out = []
        for k in range(len(levels)):
            loading = np.zeros((len(values), len(levels[k][0])), kind)
            for j, name in enumerate(levels[k][0]):
                loading[:, j] = self.effect(name, values, levels, slopes, frame)
            out.append(loading)
        return out

    def effect(self, name, values, levels, slopes, frame):
        """What one more of a variable of a higher level adds to the values."""
        if name not in slopes:
            return np.array([float(v[1] == name) for v in values])
        slope = slopes[name]
        names, _, _, reach = levels[slope.level - 1]
        total = sum(
            change * self.effect(other, values, levels, slopes, frame)
            for other, change in zip(names, reach[name], strict=True)
        )
        known = self.designs.setdefault(frame["school"].iloc[0], {})
        if slope.covariate not in known:
            first = frame.groupby("class")[slope.covariate].first()
            known[slope.covariate] = np.array(
                [
                    frame[slope.covariate].iloc[v[2]] if v[2] is not None else first.get(v[3], np.nan)
                    for v in values
                ]
            )
        return np.where(total == 0, 0, total * known[slope.covariate])

    def stacked(self):
        """The values of each school: each with its variable, its unit and its class, which may be none."""
        if not hasattr(self, "stack") or len(self.stack) != len(self.schools):
            self.stack = list(self.stacks())
        return self.stack

    def stacks(self):
        measured = self.table.variables.measured
        for part in self.schools:
            part = part.reset_index(drop=True)
            classes, school = part.groupby("class", sort=False).first(), part.bfill().iloc[0]
            values = [
                (row[name], name, i, row["class"]) for i, row in part.iterrows() for name in measured[0]
            ]
            values += [(row[name], name, None, c) for c, row in classes.iterrows() for name in measured[1]]
            values += [(school[name], name, None, None) for name in measured[2]]
            yield part, [value for value in values if not np.isnan(value[0])]

    def posterior(self, theta, level, latent):
        """Posterior means and standard deviations of latent variables of a level, by unit, by class, or by school."""
        out, levels = [], self.moments(theta)
        names, slopes = levels[level - 1][0], {slope.name for slope in self.table.slopes()}
        own = [name for name in latent if name not in slopes]
        rows = [row for row in self.table.rows if not row.slope]
        mu, sigma = oracle.implied(rows, theta, level, [*names, *own])
        eta = [[*names, *own].index(name) for name in latent]
        n = len(names)
        dense = zip(self.stacked(), self.dense(theta), strict=True)
        for (part, values), (y, mean, cov) in dense:
            inverse = np.linalg.inv(cov)
            loading = self.loadings(levels, values, part)[level - 1]
            keys = {1: list(part.index), 2: list(dict.fromkeys(part["class"])), 3: [None]}[level]
            for key in keys:
                here = np.array([level == 3 or v[level + 1] == key for v in values], dtype=bool)
                reach = sigma[np.ix_(eta, range(n))] @ np.where(here[:, None], loading, 0).T
                var = sigma[np.ix_(eta, eta)] - reach @ inverse @ reach.T
                with np.errstate(invalid="ignore"):  # of improper fits
                    spread = np.sqrt(np.diag(var))
                out.append(np.append(mu[eta] + reach @ inverse @ (y - mean), spread))
        return np.array(out)

    def dense(self, theta):
        """Values, mean and covariance matrix of each school."""
        levels = self.moments(theta)
        out = []
        for frame, values in self.stacked():
            n = len(values)
            mean = np.zeros(n, np.result_type(theta, float))
            cov = np.zeros((n, n), mean.dtype)
            unit = np.array([-1 - k if v[2] is None else v[2] for k, v in enumerate(values)])
            group = np.array([-1 - k if v[3] is None else v[3] for k, v in enumerate(values)])
            same = [unit[:, None] == unit, group[:, None] == group, np.ones((n, n), bool)]
            loadings = self.loadings(levels, values, frame)
            for (_, mu, sigma, _), shared, loading in zip(levels, same, loadings, strict=True):
                mean += loading @ mu
                cov += np.where(shared, loading @ sigma @ loading.T, 0)
            out.append((np.array([v[0] for v in values]), mean, cov))
        return out

    def logliks(self, theta):
        """Log-likelihood of each school, covariates included."""
        return self.counts * np.array(
            [oracle.normal_logpdf(y[None], mean, cov)[0] for y, mean, cov in self.dense(theta)]
        )

    def expected(self):
        theta, out = self.near, 0
        parts = oracle.complex_step(
            lambda t: np.concatenate([np.append(m, c) for _, m, c in self.dense(t)]), theta
        )
        at = 0
        counts = np.broadcast_to(self.counts, len(self.schools))
        for count, (y, _, cov) in zip(counts, self.dense(theta), strict=True):
            n = len(y)
            slopes = parts[at : at + n]
            changes = parts[at + n : at + n + n * n].reshape(n, n, -1)
            at += n + n * n
            inverse = np.linalg.inv(cov)
            whole = np.einsum("ij,jka->ika", inverse, changes)
            out = out + count * (slopes.T @ inverse @ slopes + 0.5 * np.einsum("ija,jib->ab", whole, whole))
        return out
