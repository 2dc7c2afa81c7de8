"""Several groups, each level fitted by itself: what each group alone gives, the joint fit, and dense minimisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize

import missing
import msem
from msem.errors import DataError, ModelError, UnsupportedError
from test_level_inference import MODEL as DENSE
from test_level_inference import (
    conditional_gamma,
    derivatives,
    duplication,
    estimated,
    implied,
    lower,
    moment_vector,
)
from test_moments_of_levels import CLUSTER, simulated

Floats = NDArray[np.float64]

DEMO = msem.load_demo()
DEMO = DEMO.assign(half=np.where(DEMO["cluster"] // 2 % 2 == 1, "south", "north"))
PARTS = {str(name): part for name, part in DEMO.groupby("half")}
WITHIN = "level: 1\n fw =~ y1 + y2 + y3\n fw ~ x1\n"
BETWEEN = "level: 2\n fb =~ y1 + y2 + y3\n fb ~ w1\n"
MODEL = WITHIN + BETWEEN
METHODS = ("likelihood", "ml", "uls")
ROUTES = [(method, gamma) for method in METHODS for gamma in ("observed", "expected", "robust")]
KEY = ["level", "group", "lhs", "op", "rhs"]


def fit(model: str = MODEL, data: Any = DEMO, **options: Any) -> msem.SegregatedFit:
    return msem.segregated(model, data, **({"cluster": "cluster", "group": "half"} | options))


def of_group(whole: msem.SegregatedFit, number: int) -> pd.DataFrame:
    table = whole.estimates()
    return table[table["group"] == number].drop(columns="group").reset_index(drop=True)


def agree(whole: msem.SegregatedFit, alone: list[msem.SegregatedFit]) -> None:
    """Estimates and errors are those of the groups alone, and what adds up over groups does."""
    for number, one in enumerate(alone, 1):
        table = one.estimates().drop(columns=["group"])
        pd.testing.assert_frame_equal(of_group(whole, number), table, rtol=1e-6, atol=1e-8, check_exact=False)
    for level, own in enumerate(whole.levels):
        each = [one.levels[level].tests for one in alone]
        assert own.df == sum(one.levels[level].df for one in alone)
        for name in ("likelihood_ratio", "standard", "residual"):
            if name in own.tests.index:
                total = sum(tests.loc[name, "statistic"] for tests in each)
                assert own.tests.loc[name, "statistic"] == pytest.approx(total, rel=1e-6, abs=1e-8)
        if "mean_scaled" in own.tests.index:
            # a likelihood ratio that is not scaled has the mean of its chi-square
            names = ["mean_scaled" if "mean_scaled" in tests.index else tests.index[0] for tests in each]
            means = sum(
                tests.loc[name, ["scaling", "df"]].prod() for tests, name in zip(each, names, strict=True)
            )
            assert own.tests.loc["mean_scaled", ["scaling", "df"]].prod() == pytest.approx(means, rel=1e-6)


# -- groups that share nothing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "gamma"), ROUTES)
def test_groups_that_share_nothing_are_fits_of_each(method: str, gamma: str) -> None:
    options = {"method": method, "gamma": gamma}
    alone = [fit(data=part, group=None, **options) for part in PARTS.values()]
    whole = fit(**options)
    assert whole.group_labels == ("north", "south")
    agree(whole, alone)
    assert whole.nobs == 2500
    assert whole.nclusters == 200


@pytest.mark.parametrize("method", METHODS)
def test_three_levels(method: str) -> None:
    data = simulated((3, 5), (4, 7), nschools=80).assign(kind=lambda frame: frame["school"] % 2)
    model = "\n".join(f"level: {k}\n f{k} =~ y1 + a{k}*y2 + a{k}*y3" for k in (1, 2, 3))
    free = model.replace("a1*", "").replace("a2*", "").replace("a3*", "")
    options = {"cluster": CLUSTER, "method": method}
    agree(
        fit(free, data, group="kind", **options),
        [fit(free, part, group=None, **options) for _, part in data.groupby("kind")],
    )
    for level in fit(model, data, group="kind", **options).levels:  # one label is one parameter of all groups
        assert level.df == 3
        assert level.params.filter(regex=f"^a{level.level}$").size == 1


@pytest.mark.parametrize("method", METHODS)
def test_missing_values(method: str) -> None:
    data = missing.demo_with_holes(0.1)
    data = data.assign(half=np.where(data["cluster"] // 2 % 2 == 1, "south", "north"))
    options = {"missing": "fiml", "method": method}
    agree(fit(data=data, **options), [fit(data=p, group=None, **options) for _, p in data.groupby("half")])


@pytest.mark.parametrize("method", METHODS)
def test_weights_in_one_group_only(method: str) -> None:
    weighted = PARTS["south"].assign(w=1 + (PARTS["south"].index % 3))
    given = {
        "north": msem.sem(MODEL, PARTS["north"], cluster="cluster").saturated,
        "south": msem.sem(MODEL, weighted, cluster="cluster", weights="w").saturated,
    }
    assert given["south"].weighted
    options = {"cluster": None, "group": None, "method": method}
    agree(fit(data=given, **options), [fit(data=one, **options) for one in given.values()])


# -- the same groups, given otherwise --------------------------------------------------------------------------


def published() -> dict[str, msem.LevelMoments]:
    whole = msem.sem(MODEL, DEMO, cluster="cluster", group="half")
    return {name: group.saturated for name, group in whole.groups.items()}


@pytest.mark.parametrize("method", METHODS)
def test_moments_by_label_are_the_data(method: str) -> None:
    options = {"group_equal": ["loadings", "intercepts"], "method": method}
    one = fit(**options)
    other = fit(data=published(), cluster=None, group=None, **options)
    pd.testing.assert_frame_equal(other.estimates(), one.estimates(), rtol=1e-6, atol=1e-8, check_exact=False)
    pd.testing.assert_frame_equal(other.tests(), one.tests(), rtol=1e-6, check_exact=False)
    summaries = {
        name: msem.summarize(part, cluster="cluster", keep_clusters=True) for name, part in PARTS.items()
    }
    third = fit(data=summaries, cluster=None, group=None, **options)
    assert_allclose(third.params, one.params, rtol=1e-6, atol=1e-8)
    assert_allclose(third.bse, one.bse, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_order_and_labels_of_groups_and_units_do_not_matter(method: str) -> None:
    options: dict[str, Any] = {"group_equal": ["loadings"], "method": method}
    one = fit(**options)
    renamed = DEMO.assign(
        half=DEMO["half"].map({"north": 2, "south": 1}),
        y1=DEMO["y1"] * 1000,
        y2=50 + 10 * DEMO["y2"],
        w1=DEMO["w1"] / 100,
    )
    other = fit(data=renamed, **options)
    assert other.group_labels == ("1", "2")
    ours = one.estimates().set_index(KEY)
    theirs = other.estimates().assign(group=lambda t: 3 - t["group"]).set_index(KEY).loc[ours.index]
    structure = [key for key in ours.index if key[3] != "~1"]
    assert_allclose(theirs.loc[structure, "z"], ours.loc[structure, "z"], rtol=1e-5, atol=1e-7)
    for column in ("statistic", "df", "scaling"):
        assert_allclose(other.tests()[column], one.tests()[column], rtol=1e-5)


def test_blocks_of_groups_and_labels_over_groups() -> None:
    """Blocks of their own, in their order, with a label for one level of both, are a text for all with `c()`."""
    text = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + {}y2 + y3\n"
    blocks = "".join(f"group: {name}\n{text.format('b*')}" for name in ("south", "north"))
    for method in METHODS:
        one = fit(blocks, method=method)
        other = fit(text.format("c(b, b)*"), method=method)
        assert one.group_labels == ("south", "north")
        ours = one.estimates().assign(group=lambda t: 3 - t["group"]).set_index(KEY)
        theirs = other.estimates().set_index(KEY)
        assert_allclose(ours.loc[theirs.index, ["est", "se"]], theirs[["est", "se"]], rtol=1e-6, atol=1e-8)
        assert one.between.df == other.between.df == 1


# -- equality over groups --------------------------------------------------------------------------------------

SATURATED = {
    1: "y1 ~~ y2 + y3\ny2 ~~ y3\ny1 + y2 + y3 ~ x1\n",
    2: "y1 ~~ y2 + y3\ny2 ~~ y3\ny1 + y2 + y3 ~ w1\n",
}


@pytest.mark.parametrize(
    ("level", "equal"), [(1, ["loadings"]), (2, ["loadings"]), (2, ["loadings", "intercepts"])]
)
def test_the_likelihood_route_is_the_joint_fit_with_the_other_level_saturated(
    level: int, equal: list[str]
) -> None:
    """Without x1 for the between level: means of outcomes are those at its mean there, as in the saturated model."""
    model = MODEL if level == 1 else MODEL.replace(" fw ~ x1\n", "")
    moments = {
        name: one.restrict(*msem.compile(model).table.variables.levels) for name, one in published().items()
    }
    text = WITHIN + "level: 2\n" + SATURATED[2]
    if level == 2:
        text = "level: 1\n" + SATURATED[1].replace("y1 + y2 + y3 ~ x1\n", "") + BETWEEN
    joint = msem.sem(text, moments, group_equal=equal)
    own = msem.segregated(model, moments, group_equal=equal).levels[level - 1]
    ours, theirs = own.estimates().set_index(KEY), joint.estimates().set_index(KEY)
    assert_allclose(ours["est"], theirs.loc[ours.index, "est"], rtol=1e-6, atol=1e-8)
    assert_allclose(ours["se"], theirs.loc[ours.index, "se"], rtol=1e-5, atol=1e-8)
    assert own.df == joint.df
    assert own.tests.loc["likelihood_ratio", "statistic"] == pytest.approx(joint.chisq, abs=1e-6)
    measures = joint.fit_measures(level=level)
    found = own.fit_measures()
    for name in (
        "chisq",
        "df",
        "baseline_chisq",
        "baseline_df",
        "cfi",
        "tli",
        "rmsea",
        "rmsea_ci_upper",
        "srmr",
    ):
        assert found[name] == pytest.approx(measures[name], rel=1e-5, abs=1e-6)


def minimised(
    moments: dict[str, msem.LevelMoments], level: int, method: str
) -> tuple[Floats, Floats, Floats]:
    """Estimates of two groups whose loadings are equal by dense minimisation, with sandwich and naive errors.

    Loadings of y2 and y3, then for each group slope, residual variances and factor variance, intercepts between.
    """
    groups = list(moments.values())
    own = 5 if level == 1 else 8
    sizes = [one.nobs - one.nclusters if level == 1 else one.nclusters for one in groups]
    observed = [moment_vector(one, level) for one in groups]
    covs = [(one.within if level == 1 else one.between).cov.to_numpy() for one in groups]

    def moved(theta: Floats, g: int) -> Floats:
        """Implied moments of a group, the means first if there are any."""
        part = theta[2 + g * own : 2 + (g + 1) * own]
        cov = implied(np.concatenate([theta[:2], part[:5]]), covs[g][3, 3])
        if level == 1:
            return lower(cov)
        w_mean = groups[g].between.mean["w"]
        means = part[5:] + np.array([1.0, *theta[:2]]) * part[0] * w_mean
        return np.concatenate([means, [w_mean], lower(cov)])

    def weight(theta: Floats, g: int) -> Floats:
        """U of the normal discrepancy at the implied moments, or of least squares on the standardized matrix."""
        if method == "ml":
            cov, dup = full(moved(theta, g)[-10:]), duplication(4)
            inverse = np.linalg.inv(cov)
            u, first = 0.5 * dup.T @ np.kron(inverse, inverse) @ dup, inverse
        else:
            total = groups[g].arrays
            variance = np.array(
                [
                    max(value, 0.05 * sum(abs(one.variances.get(name, 0.0)) for one in total.values()))
                    for name, value in total[level].variances.items()
                ]
            )
            u, first = np.diag(1 / lower(np.outer(variance, variance))), np.diag(1 / variance)
        if level == 1:
            return u
        return np.block([[first, np.zeros((4, 10))], [np.zeros((10, 4)), u]])

    def discrepancy(theta: Floats) -> float:
        out = 0.0
        for g, n in enumerate(sizes):
            sigma = full(moved(theta, g)[-10:])
            e = (observed[g] - moved(theta, g))[:4] if level == 2 else np.zeros(4)
            inverse = np.linalg.inv(sigma)
            out += n * (np.linalg.slogdet(sigma)[1] + np.trace(inverse @ covs[g]) + e @ inverse @ e)
        return out

    start = np.concatenate([[0.8, 0.6], *([0.4, 0.5, 0.5, 0.5, 0.6, *([0.0] * (own - 5))] for _ in groups)])
    if method == "ml":
        found = minimize(discrepancy, start, method="BFGS", options={"gtol": 1e-7}).x
        for _ in range(50):  # and steps of scoring to its last digits
            d = [derivatives(lambda x, g=g: moved(x, g), found) for g in range(2)]
            u = [n * weight(found, g) for g, n in enumerate(sizes)]
            score = sum(d[g].T @ u[g] @ (observed[g] - moved(found, g)) for g in range(2))
            found = found + np.linalg.solve(sum(d[g].T @ u[g] @ d[g] for g in range(2)), score)
    else:
        roots = [np.sqrt(n * np.diag(weight(start, g))) for g, n in enumerate(sizes)]
        found = least_squares(
            lambda x: np.concatenate([roots[g] * (observed[g] - moved(x, g)) for g in range(2)]),
            start,
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-12,
        ).x
    d = [derivatives(lambda x, g=g: moved(x, g), found) for g in range(2)]
    u = [n * weight(found, g) for g, n in enumerate(sizes)]
    h = np.linalg.inv(sum(d[g].T @ u[g] @ d[g] for g in range(2)))
    gamma = [conditional_gamma(one, level, "observed") for one in groups]
    meat = sum(d[g].T @ u[g] @ gamma[g] @ u[g] @ d[g] for g in range(2))
    left = np.vstack(d) @ h @ np.hstack([d[g].T @ u[g] for g in range(2)])
    k = len(gamma[0])
    every_u, every_gamma = np.zeros((2 * k, 2 * k)), np.zeros((2 * k, 2 * k))
    for g in range(2):
        at = slice(g * k, (g + 1) * k)
        every_u[at, at], every_gamma[at, at] = u[g], gamma[g]
    traces = every_u @ (np.eye(2 * k) - left) @ every_gamma
    return found, np.sqrt(np.diag(h @ meat @ h)), traces


def full(values: Floats) -> Floats:
    """The symmetric matrix of a lower triangle."""
    out = np.empty((4, 4))
    i, j = np.triu_indices(4)
    out[i, j] = out[j, i] = values
    return out


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("method", ["ml", "uls"])
def test_equal_loadings_by_dense_minimisation(method: str, level: int) -> None:
    rng = np.random.default_rng(4)
    moments = {"a": estimated(rng), "b": estimated(rng)}
    own = msem.segregated(DENSE, moments, method=method, group_equal=["loadings"]).levels[level - 1]
    theta, se, traces = minimised(moments, level, method)
    f, end = ("fw", "") if level == 1 else ("fb", ".l2")
    names = [f"{f}=~y2{end}", f"{f}=~y3{end}"]
    for group in ("", ".g2"):
        names += [f"{f}~{'x' if level == 1 else 'w'}{group}{end}"]
        names += [f"{y}~~{y}{group}{end}" for y in ("y1", "y2", "y3", f)]
        names += [f"{y}~1{group}{end}" for y in ("y1", "y2", "y3")] if level == 2 else []
    assert set(names) == set(own.names)
    assert_allclose(own.params[names], theta, rtol=1e-5, atol=1e-7)
    assert_allclose(own.bse[names], se, rtol=1e-4)
    mean, square = np.trace(traces), np.trace(traces @ traces)
    assert own.df == 6
    assert own.tests.loc["mean_scaled", "scaling"] == pytest.approx(mean / 6, rel=1e-4)
    assert own.tests.loc["mean_variance_adjusted", "df"] == pytest.approx(mean**2 / square, rel=1e-4)


def test_one_group_with_a_gamma_of_its_own() -> None:
    """Where the model holds exactly, a Gamma four times as large is that much more variance of the group's scores."""
    rng = np.random.default_rng(6)
    base = [estimated(rng) for _ in range(2)]
    exact = msem.sem(DENSE, {"a": base[0], "b": base[1]}, group_equal=["loadings"])
    moments = {}
    for (name, group), one in zip(exact.groups.items(), base, strict=True):
        within, between = group.implied.within, group.implied.between
        moments[name] = msem.LevelMoments(
            *(within.cov, between.cov, between.mean),
            within_mean=within.mean[["x"]],
            cluster_sizes=one.cluster_sizes,
        )
    four = {"a": moments["a"].with_acov("expected"), "b": moments["b"]}
    four["a"] = msem.LevelMoments(
        *(four["a"].within.cov, four["a"].between.cov, four["a"].between.mean),
        within_mean=four["a"].within.mean[["x"]],
        cluster_sizes=four["a"].cluster_sizes,
        known_acov=4 * four["a"].acov,
        weighted=True,
    )
    own, plain = (
        msem.segregated(DENSE, given, group_equal=["loadings"]).between for given in (four, moments)
    )
    parts = [plain.objective.of_group(g) for g in (1, 2)]
    npar = len(plain.estimate.theta)
    each = []
    for part in parts:
        information = np.zeros((npar, npar))
        k = part.table.npar
        information[:k, :k] = part.expected_information(plain.estimate.theta[:k])
        each.append(information)
    inverse = np.linalg.inv(each[0] + each[1])
    expected = (inverse @ (4 * each[0] + each[1]) @ inverse)[np.ix_(plain.own, plain.own)]
    assert_allclose(own.vcov, expected, rtol=1e-4, atol=1e-10)
    assert own.tests.loc["mean_scaled", "scaling"] > 1.5


def test_units_in_several_groups_correlate_what_is_estimated_of_them() -> None:
    """Districts with schools of both kinds: the error of a difference is that of the joint pseudo-likelihood."""
    data = DEMO.assign(w=1 + DEMO["cluster"] % 3, district=DEMO["cluster"] % 40)
    text = "level: 1\n y1 ~~ y2\nlevel: 2\n y1 ~~ c(a, b)*y2\n y1 ~ c(m, n)*1\n d := m - n\n e := a - b"
    options = {"cluster": "cluster", "group": "half", "cluster_weights": "w", "psu": "district"}
    joint = msem.sem(text, data, se="robust", **options).estimates().set_index(["lhs", "op"])["se"]
    for method in METHODS:
        own = msem.segregated(text, data, method=method, **options).estimates().set_index(["lhs", "op"])["se"]
        for name in ("d", "e"):
            assert own[name, ":="] == pytest.approx(joint[name, ":="], rel=1e-5)


# -- constraints -----------------------------------------------------------------------------------------------

LABELLED = "level: 1\n fw =~ y1 + a*y2 + b*y3\n fw ~ x1\nlevel: 2\n fb =~ y1 + y2 + y3\n fb ~ g*w1\n"


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
@pytest.mark.parametrize("method", METHODS)
def test_a_constraint_is_the_label_it_stands_for(method: str) -> None:
    options = {"group": None, "method": method}
    labelled = LABELLED.replace("b*y3", "a*y3").replace("y2 + y3\n fb ~", "c*y2 + c*y3\n fb ~")
    one = fit(labelled, **options)
    for texts in (
        "a == b; `fb=~y2.l2` == `fb=~y3.l2`",
        "k := 1; a == k*b; `fb =~ y2.l2` - `fb =~ y3.l2` == 0",
    ):
        other = fit(LABELLED, constraints=texts, **options)
        shown = [name for name in KEY if name != "group"]
        ours = one.estimates().set_index(shown)
        theirs = other.estimates().set_index(shown).loc[ours.index]
        columns = ["est", "se", "se_naive"]
        assert_allclose(theirs[columns], ours[columns], rtol=1e-6, atol=1e-8)
        pd.testing.assert_frame_equal(other.tests(), one.tests(), rtol=1e-6, check_exact=False)


@pytest.mark.parametrize("method", METHODS)
def test_definitions_have_the_errors_of_the_delta_method(method: str) -> None:
    own = fit(LABELLED + "d := a*b\n s := 2*d\n r := g^2", group=None, method=method)
    table = own.estimates(standardized=True).set_index("lhs")
    assert own.estimates()["lhs"].tolist()[-3:] == ["d", "s", "r"]
    a, b, g = own.params[["a", "b", "g"]]
    assert table.loc["d", "est"] == pytest.approx(a * b)
    vcov = own.within.cov_params().loc[["a", "b"], ["a", "b"]].to_numpy()
    naive = own.within.naive.cov_params().loc[["a", "b"], ["a", "b"]].to_numpy()
    slope = np.array([b, a])
    assert table.loc["s", "se"] == pytest.approx(2 * np.sqrt(slope @ vcov @ slope))
    assert table.loc["s", "se_naive"] == pytest.approx(2 * np.sqrt(slope @ naive @ slope))
    assert table.loc["r", "se"] == pytest.approx(2 * abs(g) * own.bse["g"])
    assert own.between.wald_test("g == 0")["statistic"].item() == pytest.approx(own.tvalues["g"] ** 2)


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
@pytest.mark.parametrize("method", METHODS)
def test_inequalities(method: str) -> None:
    own = fit(LABELLED + "a < b", group=None, method=method)
    assert own.within.status == "boundary"
    assert own.between.status == "ok"
    assert "a < b (active)" in own.summary()
    equal = fit(LABELLED + "a == b", group=None, method=method)
    assert_allclose(own.params, equal.params, rtol=1e-6, atol=1e-8)
    assert own.within.df == equal.within.df - 1


def test_what_cannot_be_separated_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="the levels share a == g"):
        fit(LABELLED + "a == g")
    with pytest.raises(UnsupportedError, match="'d := a - g' is made of parameters of several levels"):
        fit(LABELLED + "d := a - g")
    with pytest.raises(ModelError, match=r"no estimates at which these constraints hold: 'a\^2 == -1'"):
        fit(LABELLED + "a^2 == -1", group=None)


@pytest.mark.parametrize("method", ["ml", "uls"])
def test_restricted_means_within_need_the_likelihood(method: str) -> None:
    text = "level: 1\n y1 ~ x1 + x2\n x1 ~ {}x2\n x1 ~ {}1\nlevel: 2\n y1 ~ w1\n"
    free = fit(text.format("", ""), method=method)
    assert free.converged
    for odd in (
        text.format("", "c(m, m)*"),
        text.format("", "c(m, n)*") + "m == n",
        text.format("", "c(m, n)*") + "d := m - n",
    ):
        with pytest.raises(UnsupportedError, match=f'means.*method="{method}".*method="likelihood"'):
            fit(odd, method=method)
        assert fit(odd).converged


# -- what is shown ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_everything_that_is_shown_knows_the_groups(method: str) -> None:
    own = fit(group_equal=["loadings"], group_partial=["fb=~y3"], method=method)
    joint = msem.sem(MODEL, published(), group_equal=["loadings"], group_partial=["fb=~y3"])
    ours, theirs = own.estimates(), joint.estimates()
    if method == "likelihood":
        assert ours[KEY].to_numpy().tolist() == theirs[KEY].to_numpy().tolist()
        assert_allclose(ours["est"], theirs["est"], rtol=0.2, atol=0.05)
    text = own.summary(fit_measures=True, standardized=True, rsquare=True, ci=True)
    for part in ("Group 1 [north]", "Group 2 [south]", "north  ", "(.p2.)", "R-Square", "Std.all"):
        assert part in text
    assert (
        text.index("Group 1 [north]")
        < text.index("Level 2 [between]:\n\nLatent")
        < text.index("Group 2 [south]")
    )
    assert "Group 2 [south]" in own.to_html(rsquare=True)
    assert len(own.rsquare()) == len(joint.rsquare())
    standard = own.standardized().set_index(KEY)
    assert_allclose(
        standard.loc[ours.set_index(KEY).index, "est_std"], own.estimates(standardized=True)["std_all"]
    )
    assert "2 levels, 2 groups" in repr(own.diagram())
    assert "2 levels, 1 group" in repr(own.diagram(groups=["south"]))
    beside = msem.compare(levels=own, joint=joint).dropna()
    assert_allclose(beside["levels", "est"], beside["joint", "est"], rtol=0.2, atol=0.05)
    assert set(own.params.index) == {*own.within.names, *own.between.names}
    assert "fb=~y3.g2.l2" in own.params
    assert own.conf_int(level="between").index.tolist() == own.between.names
    assert_allclose(own.reference_df, joint.reference_df[own.params.index])
    assert (own.naive.bse.dropna() < own.bse[own.naive.bse.dropna().index] * 1.2).all()
    assert own.groups["south"].saturated.nobs == own.groups["south"].nobs == 1250
    for level in own.levels:
        parts = [group.chisq for group in level.groups.values()]
        assert sum(parts) == pytest.approx(
            level.tests["statistic"].iloc[0] if method != "uls" else level.discrepancy.statistic, rel=1e-6
        )
        measures = level.fit_measures()
        excess = max(measures["chisq"] - measures["df"], 0.0) * 2 / measures["df"]
        assert measures["rmsea"] == pytest.approx(
            np.sqrt(excess / (own.nobs, own.nclusters)[level.level - 1])
        )
    with pytest.raises(
        AttributeError, match=r"several groups: ask fit\.groups\[\.\.\.\], one of 'north', 'south'"
    ):
        own.saturated  # noqa: B018


def indefinite() -> msem.LevelMoments:
    """The moments of a group with a between matrix that no data without a within part have."""
    south = published()["south"]
    cov = south.between.cov.copy()
    cov.loc["y1", "y1"] -= 0.15
    return msem.LevelMoments(
        *(south.within.cov, cov, south.between.mean),
        within_mean=south.within.mean[["x1"]],
        cluster_sizes=south.cluster_sizes,
    )


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "column": (lambda: fit(group="region"), DataError, "region"),
    "labels": (
        lambda: fit(data=published(), group="half", cluster=None),
        DataError,
        "moments by group have labels",
    ),
    "labels that are one text": (
        lambda: fit(data=dict(zip((1, "1"), published().values(), strict=True)), group=None, cluster=None),
        DataError,
        "two groups have the label '1'",
    ),
    "headers without groups": (
        lambda: fit("group: north\n" + MODEL, group=None),
        ModelError,
        "'group: north' needs the groups of the data",
    ),
    "equal without groups": (lambda: fit(group=None, group_equal=["loadings"]), ModelError, "need groups"),
    "one of them": (
        lambda: fit(data={"north": published()["north"]}, group=None, cluster=None),
        DataError,
        "for one group only",
    ),
    "of two kinds": (
        lambda: fit(
            data={"north": published()["north"], "south": published()["south"].statistics},
            group=None,
            cluster=None,
        ),
        DataError,
        "group 'north' are LevelMoments, and group 'south' has a SampleStatistics",
    ),
    "variable": (
        lambda: fit(MODEL.replace("x1", "x9"), data=published(), group=None, cluster=None),
        DataError,
        "group 'north': the within covariance matrix has no x9",
    ),
    "cluster of moments": (
        lambda: fit(data=published(), group=None),
        DataError,
        "moments have their clusters",
    ),
    "indefinite": (
        lambda: fit(data=published() | {"south": indefinite()}, group=None, cluster=None, method="ml"),
        DataError,
        "between covariance matrix of group 'south' is not positive definite",
    ),
    "robust": (
        lambda: fit(data=published(), group=None, cluster=None, gamma="robust"),
        DataError,
        "needs raw data",
    ),
}


@pytest.mark.parametrize(("call", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_input(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("method", METHODS)
def test_problems_name_the_group(method: str) -> None:
    given = published()
    south = given["south"]
    less = south.between.cov.copy()
    less.loc["y1", "y1"] -= 0.09  # than what the factor explains of it
    given["south"] = msem.LevelMoments(
        *(south.within.cov, less, south.between.mean),
        within_mean=south.within.mean[["x1"]],
        cluster_sizes=south.cluster_sizes,
    )
    with pytest.warns(msem.errors.ImproperSolutionWarning, match=r"negative variance.*of group 'south': y1"):
        own = msem.segregated(MODEL, given, method=method)
    assert own.between.status == "improper"
    assert own.within.status == "ok"


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
@pytest.mark.parametrize("method", METHODS)
def test_exploratory_factors_in_groups(method: str) -> None:
    text = (
        "level: 1\n fw =~ y1 + y2 + y3 + y4 + y5 + y6\n"
        'level: 2\n efa("b")*f1 + efa("b")*f2 =~ y1 + y2 + y3 + y4 + y5 + y6\n y1 + y2 ~ w1\n'
    )
    alone = [fit(text, part, group=None, method=method).between for part in PARTS.values()]
    whole = fit(text, method=method).between
    columns = ["est", "se", "se_naive"]
    both = pd.concat([one.estimates() for one in alone])[columns]
    assert_allclose(whole.estimates()[columns], both, rtol=1e-4, atol=1e-6)
    assert (whole.estimates().query("op == '=~'")["se_naive"] < 0.2).all()
    held = fit(text, constraints="`y1~w1.l2` == `y2~w1.l2`", group=None, method=method).between
    assert held.params["y1~w1.l2"] == pytest.approx(held.params["y2~w1.l2"])
    assert held.df == alone[0].df + 1
