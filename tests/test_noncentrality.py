"""Robust CFI, TLI and RMSEA of data with missing values are those for complete data, held to dense NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import msem
import reference
from msem.fits.fit import Fit

pytestmark = pytest.mark.filterwarnings("ignore::msem.errors.SmallSampleWarning")

Floats = NDArray[np.float64]
NAMES = ["y1", "y2", "y3"]
WITHIN = "fw =~ y1 + 1*y2 + 1*y3"
BETWEEN = "fb =~ y1 + 1*y2 + 1*y3"
TWO = f"level: 1\n {WITHIN}\nlevel: 2\n {BETWEEN}"
SATURATED = "".join(f" {a} ~~ {b}\n" for a, b in itertools.combinations_with_replacement(NAMES, 2))
MEANS = "".join(f" {a} ~ 1\n" for a in NAMES)


def sample(clusters: int = 90, seed: int = 3) -> pd.DataFrame:
    """Clusters of 2, 3 and 4 units; three variables whose loadings differ, and a fourth that tells of the holes."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(clusters), np.arange(clusters) % 3 + 2)
    within, between = rng.normal(size=len(codes)), rng.normal(size=clusters)[codes]
    noise = rng.normal(size=(len(codes), 4)) + 0.9 * rng.normal(size=(clusters, 4))[codes]
    values = within[:, None] * [1.0, 0.4, 1.6, 0.5] + between[:, None] * [0.5, 1.1, 0.7, 0.5] + noise
    data = pd.DataFrame(values, columns=[*NAMES, "z"]).assign(
        cluster=codes, half=np.where(codes % 2, "a", "b")
    )
    chance = 0.6 / (1 + np.exp(-data["z"]))
    for name in NAMES[1:]:
        data[name] = data[name].mask(rng.random(len(data)) < chance)
    return data


def moments(fit: Fit) -> tuple[Floats, ...]:
    """Covariance matrices of each level, then the means."""
    levels = fit.implied.values()
    return (
        *(m.cov.loc[NAMES, NAMES].to_numpy() for m in levels),
        sum(m.mean[NAMES].to_numpy() for m in levels),
    )


def stacked(parts: Sequence[Floats], n: int) -> tuple[Floats, Floats]:
    """Mean and covariance matrix of the values of n units of a cluster."""
    *covs, mean = parts
    cov = np.kron(np.eye(n), covs[0])
    if len(covs) > 1:
        cov = cov + np.kron(np.ones((n, n)), covs[1])
    return np.tile(mean, n), cov


def directions(nlevels: int) -> list[tuple[str, tuple[Floats, ...]]]:
    """Every moment: the name of its parameter in the saturated model, and the matrices that it changes."""
    p = len(NAMES)
    out = []
    for level in range(nlevels):
        for i, j in itertools.combinations_with_replacement(range(p), 2):
            parts = [np.zeros((p, p)) for _ in range(nlevels)]
            parts[level][i, j] = parts[level][j, i] = 1.0
            suffix = ".l2" if level else ""
            out.append((f"{NAMES[i]}~~{NAMES[j]}{suffix}", (*parts, np.zeros(p))))
    for i in range(p):
        parts = [np.zeros((p, p)) for _ in range(nlevels)]
        out.append((f"{NAMES[i]}~1" + (".l2" if nlevels == 2 else ""), (*parts, np.eye(p)[i])))
    return out


def oracle(fit: Fit, saturated: Fit, sizes: Sequence[int]) -> tuple[float, float]:
    """Discrepancy of complete data, and tr(U V)."""
    model, free = moments(fit), moments(saturated)
    which = directions(len(model) - 1)
    discrepancy, weight = 0.0, np.zeros((len(which),) * 2)
    for n, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        mean, cov = stacked(model, n)
        own_mean, own_cov = stacked(free, n)
        inverse = np.linalg.inv(cov)
        ratio, gap = own_cov @ inverse, own_mean - mean
        discrepancy += count * (
            np.trace(ratio) - np.linalg.slogdet(ratio)[1] - len(cov) + gap @ inverse @ gap
        )
        tangents = [stacked(parts, n) for _, parts in which]
        for a, (mean_a, cov_a) in enumerate(tangents):
            for b, (mean_b, cov_b) in enumerate(tangents):
                half = 0.5 * np.trace(inverse @ cov_a @ inverse @ cov_b)
                weight[a, b] += count * (half + mean_a @ inverse @ mean_b)
    theta, step = fit.params.to_numpy(), 1e-5

    def vector(at: Floats) -> Floats:
        levels = [m.observed for m in fit.objective.implied(at).values()]
        parts = [m.cov.loc[NAMES, NAMES].to_numpy()[np.triu_indices(len(NAMES))] for m in levels]
        return np.concatenate([*parts, sum(m.mean[NAMES].to_numpy() for m in levels)])

    columns = [(vector(theta + u) - vector(theta - u)) / (2 * step) for u in step * np.eye(len(theta))]
    jacobian = np.stack(
        [c for c in columns if np.abs(c).max() > 0], axis=1
    )  # without those of auxiliary variables
    names = [name for name, _ in which]
    cov = saturated.cov_params().loc[names, names].to_numpy()
    inner = jacobian.T @ weight @ jacobian
    u = weight - weight @ jacobian @ np.linalg.solve(inner, jacobian.T @ weight)
    return discrepancy, float(np.trace(u @ cov))


@pytest.mark.parametrize(
    ("options", "two"),
    [
        ({}, True),
        ({"estimator": "MLR"}, True),
        ({"information": "expected"}, True),
        ({"estimator": "MLR", "auxiliary": ["z"]}, True),
        ({}, False),
        ({"estimator": "MLR"}, False),
        ({"cluster": "cluster"}, False),
    ],
)
def test_measures_are_those_of_complete_data(options: dict[str, object], two: bool) -> None:
    data = sample()
    options = {"missing": "fiml"} | ({"cluster": "cluster"} if two else {}) | options
    text = TWO if two else WITHIN
    independence = "".join(f" {a} ~~ {a}\n" for a in NAMES)
    rest = f"level: 1\n{{0}}level: 2\n{{0}}{MEANS}" if two else f"{{0}}{MEANS}"
    fit = msem.sem(text, data, **options)
    saturated = msem.sem(rest.format(SATURATED), data, **options)
    null = msem.sem(rest.format(independence), data, **options)
    sizes = data.groupby("cluster").size().to_numpy() if two else np.ones(len(data), dtype=int)
    (chisq, bias), (chisq0, bias0) = (oracle(one, saturated, sizes) for one in (fit, null))
    measures = fit.fit_measures()
    excess, excess0, df, df0 = chisq - bias, chisq0 - bias0, fit.df, null.df
    assert excess > 0
    assert measures["rmsea_robust"] == pytest.approx(np.sqrt(excess / df / len(data)), rel=1e-6)
    assert measures["cfi_robust"] == pytest.approx(1 - excess / excess0, rel=1e-6)
    assert measures["tli_robust"] == pytest.approx(1 - excess / df * df0 / excess0, rel=1e-6)
    assert bias > df  # what is missing makes the saturated moments less certain


def test_groups_add_up() -> None:
    data = sample()
    model = "f =~ y1 + 1*y2 + 1*y3"
    both = msem.cfa(model, data, group="half", missing="fiml", estimator="MLR")
    excess = 0.0
    for _, rows in data.groupby("half"):
        one = msem.cfa(model, rows, missing="fiml", estimator="MLR")
        excess += one.fit_measures()["rmsea_robust"] ** 2 * one.df * len(rows)
    expected = np.sqrt(2 * excess / both.df / len(data))
    assert both.fit_measures()["rmsea_robust"] == pytest.approx(expected, rel=1e-6)


def test_covariates_that_are_fixed_are_like_random_ones() -> None:
    """But for terms of the order of the misfit times the bias."""
    data = sample()
    fits = [
        msem.sem("y2 ~ a*z\n y3 ~ a*z\n y2 ~~ 0*y3", data, missing="fiml", fixed_x=fixed)
        for fixed in (True, False)
    ]
    one, other = (fit.fit_measures()["rmsea_robust"] for fit in fits)
    assert one == pytest.approx(other, rel=1e-3)


def test_level_is_the_model_with_the_other_level_written_out() -> None:
    data = sample()
    fits = [
        msem.sem(text, data, cluster="cluster", missing="fiml", estimator="MLR")
        for text in (TWO, f"level: 1\n{SATURATED}level: 2\n {BETWEEN}")
    ]
    part, whole = fits[0].fit_measures(level=2), fits[1].fit_measures()
    excess = whole["rmsea_robust"] ** 2 * len(data) / data["cluster"].nunique()
    assert excess > 0
    assert part["rmsea_robust"] ** 2 == pytest.approx(excess, rel=1e-4)


def test_without_missing_values_only_scaled_fits_have_robust_measures() -> None:
    data = sample().dropna()
    plain = msem.cfa(WITHIN, data, missing="fiml").fit_measures()
    assert not any("robust" in name for name in plain.index)
    scaled = msem.cfa(WITHIN, data, missing="fiml", estimator="MLR").fit_measures()
    excess = scaled["chisq"] - scaled["chisq_scaling_factor"] * scaled["df"]
    assert scaled["rmsea_robust"] == pytest.approx(np.sqrt(excess / scaled["df"] / len(data)))


@pytest.mark.parametrize("estimator", ["ML", "MLR"])
def test_saturated_model_fits_perfectly(estimator: str) -> None:
    measures = msem.cfa("f =~ y1 + y2 + y3", sample(), missing="fiml", estimator=estimator).fit_measures()
    assert measures["df"] == 0
    assert (measures[["cfi_robust", "tli_robust", "rni_robust"]] == 1).all()
    assert (measures.filter(regex="rmsea.*_robust").dropna() == 0).all()


def test_reason_why_there_is_no_chi_square() -> None:
    with pytest.warns(msem.errors.IdentificationWarning):
        fit = msem.cfa("f =~ y1 + y2\n y1 ~~ y2", sample(), missing="fiml")
    assert fit.df == -2
    assert np.isnan(fit.chisq)
    assert "unidentified" in [problem.name for problem in fit.problems]


@reference.needs_reference
def test_one_level_of_lavaan() -> None:
    """The discrepancy is theirs; the sampling covariance of the saturated moments differs by a thousandth."""
    case = reference.REFERENCE / "hs_cfa_missing"
    fit = msem.cfa((case / "model.lav").read_text(), pd.read_csv(case / "data.csv"), missing="ml")
    theirs = reference.expected("hs_cfa_missing")["fit_measures"]
    ours = fit.fit_measures()
    for name in ("cfi", "tli", "rni", "rmsea", "rmsea_ci_lower", "rmsea_ci_upper"):
        assert ours[f"{name}_robust"] == pytest.approx(theirs[f"{name.replace('_', '.')}.robust"], abs=1e-4)
