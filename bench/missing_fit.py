"""Fit measures of data with missing values against those of the same data without holes.

    python bench/missing_fit.py [replicates] > bench/results/missing_fit.csv

One factor for two that correlate .6 or .9, with values missing at random (likelier where y1, which is never missing, is
large), for one level (400 rows) and two (80 clusters of 3, 6, 9). Columns: means over replicates of the noncentrality
N df RMSEA^2, of RMSEA and of CFI: of complete data, of the likelihood ratio of data with holes, and the robust ones of
these; and the standard error of the mean difference between the first and the last noncentrality.
"""

from __future__ import annotations

import itertools
import sys
import warnings

import numpy as np
import pandas as pd

import msem

ONE = "f =~ y1 + y2 + y3 + y4 + y5 + y6"
TWO = "level: 1\n fw =~ y1 + y2 + y3 + y4 + y5 + y6\nlevel: 2\n fb =~ y1 + y2 + y3 + y4 + y5 + y6"
NAMES = [f"y{k}" for k in range(1, 7)]


def factors(rng: np.random.Generator, n: int, r: float) -> np.ndarray:
    """Six variables of two factors that correlate r."""
    f = rng.normal(size=(n, 2)) @ np.array([[1.0, r], [0.0, np.sqrt(1 - r**2)]])
    return 0.8 * f[:, [0, 0, 0, 1, 1, 1]] + 0.6 * rng.normal(size=(n, 6))


def sample(rng: np.random.Generator, levels: int, r: float) -> pd.DataFrame:
    if levels == 1:
        return pd.DataFrame(factors(rng, 400, r), columns=NAMES)
    codes = np.repeat(np.arange(80), np.resize([3, 6, 9], 80))
    values = factors(rng, len(codes), r) + 0.7 * factors(rng, 80, r)[codes]
    return pd.DataFrame(values, columns=NAMES).assign(cluster=codes)


def holes(data: pd.DataFrame, rng: np.random.Generator, share: float) -> pd.DataFrame:
    rank = data["y1"].rank(pct=True)
    out = data.copy()
    for name in NAMES[1:5]:
        out[name] = out[name].mask(rng.random(len(out)) < 2 * share * rank)
    return out


def replicate(
    rng: np.random.Generator, levels: int, r: float, share: float, estimator: str
) -> dict[str, float]:
    data = sample(rng, levels, r)
    options = {"cluster": "cluster"} if levels == 2 else {}
    model = ONE if levels == 1 else TWO
    whole = msem.sem(model, data, estimator=estimator, **options).fit_measures()
    part = msem.sem(
        model, holes(data, rng, share), missing="fiml", estimator=estimator, **options
    ).fit_measures()
    end = "_robust" if estimator == "MLR" else ""
    measures = {"complete": whole[["rmsea" + end, "cfi" + end]], "holes": part[["rmsea", "cfi"]]}
    measures["robust"] = part[["rmsea_robust", "cfi_robust"]]
    out = {}
    for name, (rmsea, cfi) in measures.items():
        out |= {f"noncentrality_{name}": rmsea**2 * part["df"] * len(data)}
        out |= {f"rmsea_{name}": rmsea, f"cfi_{name}": cfi}
    return out


def main(replicates: int) -> None:
    rows = []
    designs = itertools.product((1, 2), (0.6, 0.9), ("ML", "MLR"), (0.15, 0.35))
    for levels, r, estimator, share in designs:
        rng = np.random.default_rng(1)
        each = [replicate(rng, levels, r, share, estimator) for _ in range(replicates)]
        found = pd.DataFrame(each).dropna()
        gap = found["noncentrality_robust"] - found["noncentrality_complete"]
        head = {"levels": levels, "correlation": r, "estimator": estimator, "missing": share}
        head |= {"replicates": len(found)}
        rows.append(head | found.mean().to_dict() | {"standard_error": gap.std() / np.sqrt(len(found))})
    print(pd.DataFrame(rows).round(4).to_csv(index=False), end="")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
