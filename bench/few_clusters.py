"""Size and power of tests, and coverage of intervals, with few clusters: `python bench/few_clusters.py --help`.

Between levels of 4 indicators of one factor and of 8 indicators of two, with 10 to 100 clusters. Counted are rejections
at the 5% level of the between part of the chi-square (within saturated) and of the whole one, plain and with each
correction of the between part, when the model is true and when it leaves out a between-level covariance of residuals;
of the robust tests of "MLR"; and, in a model with an indirect effect, 95% intervals that contain the population value.
Normal variables, whose sufficient statistics are drawn and fitted by compiled code, but for "MLR".
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

import msem

HERE = Path(__file__).parent
CLUSTERS = (10, 20, 30, 50, 100)
SIZE = 10  # units of a cluster
ICC = (0.05, 0.2)
LOADINGS = (1.0, 0.8, 0.9, 0.7)
MISFIT = 0.35  # correlation of two pairs of between residuals that the model leaves out
MOST = 60  # iterations: one start, which is enough for all but a few samples of 20 clusters and more
Z = 1.959963984540054
Floats = NDArray[np.float64]


def level(factors: int, name: str, variance: float | None, misfit: float = 0.0) -> list[str]:
    """One level with four indicators for each factor; a population when the variance of its variables is given."""
    out: list[str] = []
    for f in range(factors):
        items = [f"y{4 * f + k + 1}" for k in range(4)]
        if variance is None:
            out.append(f"  {name}{f} =~ " + " + ".join(items))
            continue
        out.append(
            f"  {name}{f} =~ " + " + ".join(f"{x:g}*{y}" for x, y in zip(LOADINGS, items, strict=True))
        )
        out.append(f"  {name}{f} ~~ {0.6 * variance:g}*{name}{f}")
        out += [f"  {y} ~~ {0.4 * variance:g}*{y}" for y in items]
        if misfit:
            out.append(f"  {items[0]} ~~ {misfit * 0.4 * variance:g}*{items[1]}")
    if factors == 2 and variance is not None:
        out.append(f"  {name}0 ~~ {0.3 * variance:g}*{name}1")
    return out


def saturated(count: int) -> list[str]:
    """All variances and covariances of the items."""
    names = [f"y{k + 1}" for k in range(count)]
    return [f"  {a} ~~ {b}" for a, b in itertools.combinations_with_replacement(names, 2)]


def model(within: list[str], between: list[str]) -> str:
    """Text of a model of two levels."""
    return "\n".join(["level: 1", *within, "level: 2", *between])


def factors_of(clusters: int, p: int, k: int, q: int, df: int) -> dict[str, float]:
    """What the between part of the chi-square is multiplied by; 1 - c / n with n = J - 1.

    p variables, k factors, q free parameters of the between covariance matrix.
    """
    n = clusters - 1
    root = (np.sqrt(1 + 8 * q) - 1) / 2
    swain = p * (2 * p**2 + 3 * p - 1) - root * (2 * root**2 + 3 * root - 1)
    return {
        "standard": 1.0,
        "bartlett": 1 - (2 * p + 4 * k + 5) / (6 * n),
        "yuan": 1 - (2 * p + 2 * k + 7) / (6 * n),
        "swain": 1 - swain / (12 * df * n),
        "yuan_tian_yanagihara": (clusters - (2.381 + 0.361 * p + 0.006 * q)) / n,
    }


def rejected(statistic: Floats, df: int, denominator: float = np.inf) -> float:
    """Share of statistics beyond the 5% point of chi-square, or of F for the statistic over its df."""
    found = statistic[np.isfinite(statistic)]
    if np.isfinite(denominator):
        return float(np.mean(found / df > stats.f.ppf(0.95, df, denominator)))
    return float(np.mean(found > stats.chi2.ppf(0.95, df)))


def tests(clusters: int, factors: int, icc: float, misfit: float, replications: int, seed: int) -> list[dict]:
    """Rejections of one cell of the design."""
    p = 4 * factors
    population = model(level(factors, "w", 1 - icc), level(factors, "b", icc, misfit))
    samples = msem.simulate(
        population,
        nclusters=clusters,
        cluster_sizes=SIZE,
        replications=replications,
        seed=seed,
        as_="statistics",
    )
    own, other = level(factors, "w", None), level(factors, "b", None)
    found = {}
    for name, text in {"whole": model(own, other), "between": model(saturated(p), other)}.items():
        compiled = msem.compile(text, cluster="cluster", se="none", max_iterations=MOST)
        arrays = compiled.fit_many(samples, progress=False, threads=1).arrays
        found[name] = np.where(arrays.fitted, arrays.chisq(compiled.df), np.nan), compiled.df
    (whole, df), (between, df_b) = found["whole"], found["between"]
    q = p * (p + 1) // 2 - df_b
    rows = []
    cell = {"clusters": clusters, "items": p, "icc": icc, "misfit": misfit}
    usable = np.isfinite(whole) & np.isfinite(between)
    for name, factor in factors_of(clusters, p, factors, q, df_b).items():
        used = factor * between
        rows.append(
            cell
            | {
                "what": "rejection",
                "method": name,
                "between": rejected(used[usable], df_b),
                "whole": rejected((whole - between + used)[usable], df),
                "used": int(usable.sum()),
            }
        )
    for name, m in {"f(df, J - 1)": clusters - 1, "f(df, J - p)": clusters - p}.items():
        # the F of the between part, as the chi-square of the same probability added to the rest
        chisq = stats.chi2.isf(stats.f.sf(between[usable] / df_b, df_b, max(m, 1)), df_b)
        rows.append(
            cell
            | {
                "what": "rejection",
                "method": name,
                "between": rejected(between[usable], df_b, max(m, 1)),
                "whole": rejected((whole - between)[usable] + chisq, df),
                "used": int(usable.sum()),
            }
        )
    return rows


def robust(clusters: int, icc: float, replications: int, seed: int) -> list[dict]:
    """Rejections of the tests that assume no distribution, with one factor; fitted one after the other."""
    samples = msem.simulate(
        model(level(1, "w", 1 - icc), level(1, "b", icc)),
        nclusters=clusters,
        cluster_sizes=SIZE,
        replications=replications,
        seed=seed,
    )
    text = model(level(1, "w", None), level(1, "b", None))
    found: dict[str, list[float]] = {"standard": [], "yuan_bentler_mplus": [], "hotelling": []}
    for data in samples:
        try:
            fit = msem.sem(text, data, cluster="cluster", estimator="MLR", test=[*found], max_iterations=MOST)
        except msem.errors.MsemError:
            continue
        pvalues = fit.tests()["pvalue"]
        if fit.converged and pvalues.notna().all():
            for name in found:
                found[name].append(float(pvalues[name] < 0.05))
    cell = {"clusters": clusters, "items": 4, "icc": icc, "misfit": 0.0, "what": "rejection, MLR"}
    return [
        cell | {"method": name, "whole": float(np.mean(each)), "used": len(each)}
        for name, each in found.items()
    ]


PATHS = """
level: 1
  fw =~ y1 + y2 + y3 + y4
  y5 ~~ fw
level: 2
  fb =~ y1 + l2*y2 + y3 + y4
  fb ~~ v*fb
  y2 ~~ e*y2
  fb ~ a*z
  y5 ~ b*fb + z
  ab := a*b
  std := l2 * sqrt((a^2 * 1 + v) / (l2^2 * (a^2 + v) + e))
"""
TRUTH = {"a": 0.5, "b": 0.4, "v": 0.75, "l2": 0.8, "e": 0.4}


def intervals(clusters: int, icc: float, replications: int, seed: int) -> list[dict]:
    """Coverage in the model with an indirect effect, z a covariate of the clusters with variance 1."""
    ratio = (1 - icc) / icc
    population = f"""
level: 1
  fw =~ 1*y1 + 0.8*y2 + 0.9*y3 + 0.7*y4
  fw ~~ {0.6 * ratio:g}*fw
  y1 ~~ {0.4 * ratio:g}*y1
  y2 ~~ {0.4 * ratio:g}*y2
  y3 ~~ {0.4 * ratio:g}*y3
  y4 ~~ {0.4 * ratio:g}*y4
  y5 ~~ {ratio:g}*y5 + {0.2 * ratio:g}*fw
level: 2
  fb =~ 1*y1 + 0.8*y2 + 0.9*y3 + 0.7*y4
  fb ~ 0.5*z
  fb ~~ 0.75*fb
  y1 ~~ 0.4*y1
  y2 ~~ 0.4*y2
  y3 ~~ 0.4*y3
  y4 ~~ 0.4*y4
  y5 ~ 0.4*fb + 0*z
  y5 ~~ 0.6*y5
  z ~~ 1*z
"""
    samples = msem.simulate(
        population,
        nclusters=clusters,
        cluster_sizes=SIZE,
        replications=replications,
        seed=seed,
        as_="statistics",
    )
    compiled = msem.compile(PATHS, cluster="cluster", se="standard", max_iterations=MOST)
    many = compiled.fit_many(samples, progress=False, threads=1)
    est, se = many.params, many.bse
    good = est.notna().all(axis=1) & (se > 0).all(axis=1)
    est, se = est[good], se[good]
    rng = np.random.default_rng(seed)
    truth = TRUTH | {"ab": TRUTH["a"] * TRUTH["b"]}
    truth["std"] = TRUTH["l2"] * np.sqrt(1 / (TRUTH["l2"] ** 2 + TRUTH["e"]))

    def share(lower: Floats, upper: Floats, what: str) -> dict:
        inside, finite = (lower <= truth[what]) & (truth[what] <= upper), np.isfinite(lower + upper)
        return {
            "between": float(np.mean(inside[finite])),
            "below": float(np.mean(upper[finite] < truth[what])),
            "above": float(np.mean(lower[finite] > truth[what])),
            "used": int(finite.sum()),
        }

    t = stats.t.ppf(0.975, clusters - 1)
    rows = []
    for what in ("a", "b", "v", "e", "std", "ab"):
        x, s = est[what].to_numpy(), se[what].to_numpy()
        kinds = {"wald": (x - Z * s, x + Z * s), "wald, t": (x - t * s, x + t * s)}
        with np.errstate(all="ignore"):
            for end, name in ((Z, ""), (t, ", t")):  # the plain interval where there is no such scale
                plain = kinds[f"wald{name}"]
                if what in "ve":
                    limits = (x * np.exp(-end * s / x), x * np.exp(end * s / x))
                    kinds[f"log{name}"] = tuple(
                        np.where(x > 0, a, b) for a, b in zip(limits, plain, strict=True)
                    )
                if what == "std":
                    h = s / (1 - x**2)
                    limits = (np.tanh(np.arctanh(x) - end * h), np.tanh(np.arctanh(x) + end * h))
                    kinds[f"fisher{name}"] = tuple(
                        np.where(abs(x) < 1, a, b) for a, b in zip(limits, plain, strict=True)
                    )
            if what == "ab":
                for name, draw in (
                    ("monte carlo", rng.standard_normal((2, 4000))),
                    ("monte carlo, t", rng.standard_t(clusters - 2, (2, 4000))),
                ):
                    a = est["a"].to_numpy()[:, None] + se["a"].to_numpy()[:, None] * draw[0]
                    b = est["b"].to_numpy()[:, None] + se["b"].to_numpy()[:, None] * draw[1]
                    kinds[name] = tuple(np.quantile(a * b, (0.025, 0.975), axis=1))
        cell = {"clusters": clusters, "items": 5, "icc": icc, "misfit": 0.0}
        rows += [
            cell | {"what": f"coverage of {what}", "method": name} | share(*limits, what)
            for name, limits in kinds.items()
        ]
    return rows


def main() -> None:
    """Run the simulation and write its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "few_clusters.csv")
    given = parser.parse_args()
    begin, rows = time.process_time(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fits without a maximum are counted by what is used
        for clusters, icc in itertools.product(CLUSTERS, ICC):
            for factors, misfit in itertools.product((1, 2), (0.0, MISFIT)):
                rows += tests(clusters, factors, icc, misfit, given.replications, given.seed)
            rows += intervals(clusters, icc, given.replications, given.seed)
            if clusters > 10 and icc == ICC[-1]:
                rows += robust(clusters, icc, given.replications // 2, given.seed)
            print(clusters, icc, f"{time.process_time() - begin:.0f} s", flush=True)
    names = [
        "what",
        "method",
        "clusters",
        "items",
        "icc",
        "misfit",
        "between",
        "whole",
        "below",
        "above",
        "used",
    ]
    digits = ("between", "whole", "below", "above")
    with given.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*names, "replications", "seed", "msem"], restval="")
        writer.writeheader()
        for row in rows:
            shown = {k: f"{v:.3f}" if k in digits else v for k, v in row.items()}
            writer.writerow(
                shown | {"replications": given.replications, "seed": given.seed, "msem": msem.__version__}
            )


if __name__ == "__main__":
    main()
