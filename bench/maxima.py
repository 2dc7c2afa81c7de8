"""Whether every sample ends with a maximum, and a true one: `python bench/maxima.py --help`.

One factor of 4 indicators and two of 8 at each level; 10 to 100 clusters, intraclass correlations of .01 to .3,
clusters of 5 units or of very different sizes. What is reported as a maximum is verified by code that shares nothing
with the package but the estimates: -2 log L from the statistics by cluster size, in NumPy. Natural maxima have a
gradient of zero there; those in the cone are started from again by L-BFGS-B of SciPy, in loadings, correlations and
residual variances that cannot leave it. In some samples 20 random starts look for a higher maximum, and lavaan fits
some samples of the same populations.

    python bench/maxima.py                    # the whole grid; writes results/maxima.csv
    python bench/maxima.py --samples 5
    python bench/maxima.py --lavaan 4         # one sample of every cell in four; needs Rscript with lavaan
"""

from __future__ import annotations

import argparse
import itertools
import platform
import subprocess
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize

import msem
from few_clusters import level, model

HERE = Path(__file__).parent
CLUSTERS, ICC, FACTORS, SHAPES = (10, 20, 40, 100), (0.01, 0.05, 0.1, 0.3), (1, 2), ("balanced", "unbalanced")
SEED, SIZE, STARTS = 1, 5, 20
HIGHER = 1e-3  # difference of log-likelihoods that counts
ANSWERS = ("ok", "boundary", "improper")
Floats = NDArray[np.float64]


def sizes(shape: str, clusters: int) -> list[int]:
    """Units of each cluster: 5, or from 2 to 40 and hardly two alike."""
    if shape == "balanced":
        return [SIZE] * clusters
    rng = np.random.default_rng(clusters)
    return np.clip(np.round(np.exp(rng.normal(1.6, 0.8, clusters))), 2, 40).astype(int).tolist()


class Deviance:
    """-2 log L of covariance matrices within and between, means being at their maximum, from statistics by size."""

    def __init__(self, statistics: Any) -> None:
        s = statistics
        self.sizes, self.counts, self.means, self.scatter, self.ssw = (
            s.sizes,
            s.counts,
            s.means,
            s.scatter,
            s.ssw,
        )
        self.degrees = float(self.counts @ (self.sizes - 1))

    def _by_size(self, within: Floats, between: Floats) -> list[tuple[float, float, Floats, Floats]]:
        """Size, clusters, inverse covariance matrix of the means times the size, and products about the mean."""
        inverses = [np.linalg.inv(within + n * between) for n in self.sizes]
        weights = sum(c * n * v for n, c, v in zip(self.sizes, self.counts, inverses, strict=True))
        total = sum(
            c * n * v @ m for n, c, v, m in zip(self.sizes, self.counts, inverses, self.means, strict=True)
        )
        off = self.means - np.linalg.solve(weights, total)
        return [
            (n, c, v, s + c * np.outer(d, d))
            for n, c, v, s, d in zip(self.sizes, self.counts, inverses, self.scatter, off, strict=True)
        ]

    def __call__(self, within: Floats, between: Floats) -> float:
        """Infinity outside the domain."""
        try:
            roots = [np.linalg.cholesky(m) for m in (within, *(within + n * between for n in self.sizes))]
        except np.linalg.LinAlgError:
            return np.inf
        log_dets = np.array([2 * np.log(np.diag(root)).sum() for root in roots])
        out = self.degrees * log_dets[0] + self.counts @ log_dets[1:]
        out += np.trace(np.linalg.solve(within, self.ssw))
        out += sum(n * np.sum(v * m) for n, _, v, m in self._by_size(within, between))
        return float(out + self.counts @ self.sizes * len(within) * np.log(2 * np.pi))

    def derivatives(self, within: Floats, between: Floats) -> tuple[Floats, Floats]:
        """About both matrices, symmetric."""
        inverse = np.linalg.inv(within)
        of_within = self.degrees * inverse - inverse @ self.ssw @ inverse
        of_between = np.zeros_like(within)
        for n, c, v, m in self._by_size(within, between):
            part = c * v - n * v @ m @ v
            of_within += part
            of_between += n * part
        return of_within, of_between


def matrices(fit: msem.Fit) -> tuple[Floats, Floats]:
    """Covariance matrices of the indicators that a fit implies within and between clusters."""
    names = list(fit.sample.statistics[0].unit)
    return tuple(fit.implied[k].cov.loc[names, names].to_numpy() for k in (1, 2))


def in_cone(x: Floats, factors: int) -> tuple[Floats, Floats]:
    """Covariance matrices of both levels from loadings, residual variances and correlations of factors."""
    p, out = 4 * factors, []
    for part in np.split(x, 2):
        loadings = np.zeros((p, factors))
        for f in range(factors):
            loadings[4 * f : 4 * f + 4, f] = part[4 * f : 4 * f + 4]
        correlations = np.eye(factors)
        if factors == 2:
            correlations[0, 1] = correlations[1, 0] = part[-1]
        out.append(loadings @ correlations @ loadings.T + np.diag(part[p : 2 * p]))
    return out[0], out[1]


def coordinates(fit: msem.Fit, factors: int) -> Floats | None:
    """The estimates in these coordinates; None outside the cone."""
    p, parts = 4 * factors, []
    for suffix, name in (("", "w"), (".l2", "b")):
        value = dict(zip(fit.table.names(), fit.theta, strict=True))
        variances = [value[f"{name}{f}~~{name}{f}{suffix}"] for f in range(factors)]
        loadings = [
            (value[f"{name}{k // 4}=~y{k + 1}{suffix}"] if k % 4 else 1.0)
            * np.sqrt(max(variances[k // 4], 0.0))
            for k in range(p)
        ]
        residual = [value[f"y{k + 1}~~y{k + 1}{suffix}"] for k in range(p)]
        if min(*variances, *residual) < -1e-9:
            return None
        part = [*loadings, *np.maximum(residual, 0.0)]
        if factors == 2:
            scale = np.sqrt(max(variances[0] * variances[1], 1e-300))
            part.append(float(np.clip(value[f"{name}0~~{name}1{suffix}"] / scale, -1, 1)))
        parts.append(part)
    return np.concatenate(parts)


def verified(fit: msem.Fit, factors: int) -> tuple[str, float]:
    """How a maximum was verified, and by how much the log-likelihood could be raised from it."""
    deviance = Deviance(fit.sample.statistics[0])
    value = deviance(*matrices(fit))
    if abs(-0.5 * value - fit.llf) > 1e-6 * (1 + abs(fit.llf)):
        return "another log-likelihood", np.inf
    start = coordinates(fit, factors)
    if fit.status == "improper" or start is None:
        return "natural", natural_gain(fit, deviance)
    p = 4 * factors
    one = [(None, None)] * p + [(0, None)] * p + [(-1, 1)] * (factors == 2)
    better = optimize.minimize(
        lambda x: deviance(*in_cone(x, factors)),
        start,
        method="L-BFGS-B",
        bounds=one * 2,
        options={"maxiter": 50, "maxfun": 5000},
    )
    return "cone", max(0.0, 0.5 * (value - float(better.fun)))


def natural_gain(fit: msem.Fit, deviance: Deviance) -> float:
    """g'Vg / 2 with the gradient g of the log-likelihood and the covariance matrix V of the estimates.

    Covariances are polynomials of degree two in each parameter, whose central differences are exact.
    """
    objective = fit.estimate.objective
    p = len(fit.sample.statistics[0].unit)
    slopes = deviance.derivatives(*matrices(fit))
    errors = np.sqrt(np.diag(fit.vcov))
    moving = np.flatnonzero(np.isfinite(errors) & (errors > 0))
    gradient = []
    for k in moving:
        step = np.zeros_like(fit.theta)
        step[k] = 0.01 * max(abs(fit.theta[k]), 1e-6)
        up, down = objective.moments(fit.theta + step), objective.moments(fit.theta - step)
        change = [(up[level].cov - down[level].cov)[:p, :p] / (2 * step[k]) for level in (1, 2)]
        gradient.append(-0.5 * sum(np.sum(slope * d) for slope, d in zip(slopes, change, strict=True)))
    g = np.array(gradient)
    return 0.5 * float(g @ fit.vcov[np.ix_(moving, moving)] @ g)


def one_sample(
    text: str, statistics: Any, factors: int, number: int, args: argparse.Namespace
) -> dict[str, Any]:
    """What comes of one sample."""
    began = time.perf_counter()
    try:
        fit = msem.sem(text, statistics)
    except msem.errors.MsemError as error:
        return {"status": type(error).__name__, "seconds": time.perf_counter() - began}
    out: dict[str, Any] = {"status": fit.status, "seconds": time.perf_counter() - began, "llf": fit.llf}
    out["border"] = fit.estimate.optimum.border is not None
    out["chisq"] = fit.fit_measures()["chisq"] if fit.converged else np.nan
    out["below"] = fit.converged and fit.unrestricted_llf < fit.llf - 1e-6
    if not fit.converged:
        return out
    if number % args.verify == 0:
        out["how"], out["gain"] = verified(fit, factors)
    if number % args.starts == 0:
        out["more"] = msem.sem(text, statistics, starts=STARTS).llf - fit.llf
    return out


def lavaan(frames: list[pd.DataFrame], text: str) -> list[tuple[bool, float]]:
    """Whether lavaan converges, and its log-likelihood."""
    with tempfile.TemporaryDirectory() as folder:
        for k, frame in enumerate(frames):
            frame.to_csv(Path(folder) / f"{k}.csv", index=False)
        (Path(folder) / "model.lav").write_text(text)
        done = subprocess.run(
            ["Rscript", HERE / "run_lavaan_maxima.R", folder, str(len(frames))],
            check=True,
            capture_output=True,
        )
    lines = done.stdout.decode().split()
    return [(converged == "TRUE", float(llf)) for converged, llf in (line.split(",") for line in lines)]


def cell(
    clusters: int, icc: float, factors: int, shape: str, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """All samples of one cell of the grid."""
    population = model(level(factors, "w", 1 - icc), level(factors, "b", icc))
    text = model(level(factors, "w", None), level(factors, "b", None))
    options = {"nclusters": clusters, "cluster_sizes": sizes(shape, clusters), "seed": SEED}
    samples = msem.simulate(population, replications=args.samples, as_="statistics", **options)
    rows = []
    for number, statistics in enumerate(samples):
        about = {"clusters": clusters, "icc": icc, "items": 4 * factors, "sizes": shape, "sample": number}
        rows.append(about | one_sample(text, statistics, factors, number, args))
    if args.lavaan:
        count = max(1, args.samples // args.lavaan)
        frames = list(msem.simulate(population, replications=count, **options))
        for row, (converged, llf) in zip(rows, lavaan(frames, text), strict=False):
            row |= {"lavaan": converged, "lavaan_llf": llf}
    return rows


def share(values: pd.Series) -> str:
    """Per cent with one digit, of those that were looked at."""
    return f"{100 * values.mean():.1f}" if len(values) else ""


def table(found: pd.DataFrame) -> str:
    """By number of clusters and shape, in Markdown."""
    lines = [
        "| clusters | sizes | samples | a maximum, % | chi-square, % | ok | improper | boundary | of the cone |"
        " verified, % | higher from 20 starts, % | lavaan converges, % |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    whole = [(("all", ""), found)]
    for (clusters, shape), part in [*found.groupby(["clusters", "sizes"]), *whole]:
        checked = part[part["gain"].notna()]
        again = part[part["more"].notna()]
        peer = part["lavaan"].dropna() if "lavaan" in part else pd.Series(dtype=float)
        lines.append(
            f"| {clusters} | {shape} | {len(part)} | {share(part['status'].isin(ANSWERS))} | "
            f"{share(part['chisq'].notna())} | "
            + " | ".join(share(part["status"] == name) for name in ("ok", "improper", "boundary"))
            + f" | {share(part['border'] == True)} | {share(checked['gain'] < HIGHER)} | "  # noqa: E712
            f"{share(again['more'] > HIGHER)} | {share(peer.astype(float))} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=56, help="of each cell of the grid")
    parser.add_argument("--verify", type=int, default=4, help="every so many samples are verified")
    parser.add_argument(
        "--starts", type=int, default=8, help="every so many samples are tried from more starts"
    )
    parser.add_argument(
        "--lavaan", type=int, default=0, help="one in so many samples is fitted by lavaan too"
    )
    parser.add_argument("--clusters", type=int, nargs="*", default=CLUSTERS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for clusters, icc, factors, shape in itertools.product(args.clusters, ICC, FACTORS, SHAPES):
        rows += cell(clusters, icc, factors, shape, args)
        counted = Counter(row["status"] for row in rows[-args.samples :])
        print(clusters, icc, factors, shape, dict(counted), flush=True)
    found = pd.DataFrame(rows)
    found.to_csv(HERE / "results" / "maxima.csv", index=False, float_format="%.6g")
    print(f"msem {msem.__version__}, Python {platform.python_version()}, {platform.machine()}")
    print(table(found))


if __name__ == "__main__":
    main()
