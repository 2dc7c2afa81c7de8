"""What is wrong with a solution, named, with its cause and what to try."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.errors import ModelError
from msem.estimation.integrals import QuadratureAccuracy
from msem.estimation.matrices import BlockMap
from msem.estimation.objective import Objective
from msem.estimation.optimize import Optimum
from msem.estimation.rotation import RotatedBlock
from msem.estimation.sampling import Sampling
from msem.model.levels import level_place

Floats = NDArray[np.float64]

SEVERITY = (
    "ok",
    "boundary",
    "improper",
    "no_chi_square",
    "saddle_point",
    "unidentified",
    "not_converged",
)
VERDICTS = (*SEVERITY, "failed")  # of the core, in its order; the last two have no estimates
UNUSABLE = VERDICTS.index("failed")
REMARKS = (
    "few_clusters",
    "several_maxima",
    "coarse_quadrature",
)  # said beside a status, which they do not change
MOST = 6  # parameters named
COARSE = 1e-4  # change of a log-likelihood with more nodes that deserves to be told
NEAR = 4.0  # in -2 log L: a local maximum that deserves to be told
ENOUGH = 50  # iterations after which more will hardly help
# of the core, in its order
PARTS = (
    "",
    "covariance matrix of the residuals",
    "residual covariance matrix of the latent variables",
    "covariance matrix of the latent variables",
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about a solution.

    Attributes
    ----------
    name : str
        One of "boundary", "improper", "no_chi_square", "saddle_point", "unidentified", "not_converged"; or
        "few_clusters", "several_maxima" or "coarse_quadrature", remarks that leave the status as it is.
    cause : str
        What was found, naming level and parameters.
    remedy : str
        What to try.
    """

    name: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.cause}. {self.remedy}"


def status_of(problems: Sequence[Problem]) -> str:
    """Name of the most serious problem, "ok" when there is none."""
    return max((p.name for p in problems if p.name not in REMARKS), key=SEVERITY.index, default="ok")


def no_chi_square(unidentified: Sequence[str] = (), shortage: str = "") -> Problem:
    """There is nothing to test a model against.

    The saturated model has no maximum that could be found, perhaps for a shortage of rows or clusters; or no single
    one: then the moments are named.
    """
    if unidentified:
        more = f" and {len(unidentified) - MOST} more" if len(unidentified) > MOST else ""
        return Problem(
            "no_chi_square",
            f"these saturated moments cannot be estimated, because their variables are never observed together: "
            f"{', '.join(unidentified[:MOST])}{more}",
            "Estimates and standard errors are valid where the model identifies them; there is nothing to test the "
            "model against",
        )
    if shortage:
        return Problem(
            "no_chi_square",
            f"the saturated model has no maximum with {shortage}, so there is nothing to test against",
            "Estimates and standard errors are those of the model and do not need it; for a test simplify the model to "
            "fewer variables, or hold it against a model with more parameters (msem.compare_models)",
        )
    return Problem(
        "no_chi_square",
        "the saturated model has not converged, so there is nothing to test against",
        "Too few clusters of the largest size, or a between covariance matrix on the boundary of what the cluster "
        "sizes allow, are the usual causes",
    )


MIXTURE = (
    "The chi-square compares maxima of the same space; its distribution on a border is a mixture of chi-squares that "
    "depends on the unknown parameters, so p-values from its degrees of freedom are approximate"
)


def border_moments() -> Problem:
    """Saturated moments that are a maximum in the cone only."""
    return Problem(
        "boundary",
        "the saturated model has no maximum, or none that can be found, unless its between covariance matrix is kept "
        "positive semidefinite: these moments are the maximum on that border",
        'They have no Gamma and no standard errors; space="psd" takes this border without a word, space="natural" does '
        "without it",
    )


def saturated_boundary(optimum: Optimum) -> Problem:
    """The saturated model has a maximum among positive semidefinite matrices only."""
    same = "" if optimum.border is not None else "; the estimates of the model are within it"
    return Problem(
        "boundary",
        "the saturated model has no maximum, or none that can be found, unless its between covariance matrix is kept "
        f"positive semidefinite: it is tested against the maximum on that border{same}",
        MIXTURE,
    )


FAR = 30.0  # residual standard deviations that a path moves an ordered response by, of a standard deviation
VAGUE = 10.0  # of that, not known


def find_problems(
    objective: Objective, optimum: Optimum, sampling: Sampling | None, level: int | None = None
) -> tuple[Problem, ...]:
    """All problems of a solution.

    Parameters
    ----------
    objective : Objective
    optimum : Optimum
    sampling : Sampling or None
        None when no standard errors were asked for.
    level : int, optional
        Look for impropriety at this level only, because the other is saturated.

    Returns
    -------
    tuple of Problem
    """
    found = [*_convergence(objective, optimum)]
    if sampling is not None:
        found += _identification(objective, sampling, optimum)
    found += _bounds(objective, optimum)
    found += _maxima(objective, optimum)
    if optimum.surpassed > 0:
        found.append(
            Problem(
                "improper",
                f"a local maximum of the likelihood: -2 log L falls {optimum.surpassed:.3g} lower in a direction in "
                "which estimates grow without end",
                'Take the maximum among positive semidefinite matrices, space="psd", or simplify the between level',
            )
        )
    found += _impropriety(objective, optimum.theta, level)
    found += _disorder(objective, optimum)
    return tuple(found)


def _convergence(objective: Objective, optimum: Optimum) -> Iterator[Problem]:
    if optimum.converged:
        return
    flat = _core.flat_direction(objective.core, optimum.theta)
    cause = no_convergence(optimum.stop, len(optimum.diary), [objective.table.names()[i] for i in flat])
    if optimum.stop == "unbounded":
        remedy = (
            "There are too few clusters of the largest size to tell the levels apart: take the maximum among positive "
            'semidefinite matrices, space="psd", or simplify the between level'
        )
    elif _stopped_early(optimum.stop, len(optimum.diary)):
        remedy = "Allow more with max_iterations="
    else:
        remedy = (
            "Look at fit.iterations. With little between variance or few clusters, in particular few of the largest "
            f'size{_largest(objective)}, there may be no finite estimates: take space="psd", simplify the between '
            "level, or choose another marker"
        )
    yield Problem("not_converged", cause, remedy)


def _stopped_early(stop: str, count: int) -> bool:
    return stop == "iteration limit" and count < ENOUGH


def rotation_problems(blocks: Sequence[RotatedBlock]) -> tuple[Problem, ...]:
    """Exploratory blocks whose rotation has no minimum that was found."""
    lost = [one.block.label for one in blocks if not one.minima[0].converged]
    if not lost:
        return ()
    return (
        Problem(
            "not_converged",
            f"the rotation of {', '.join(map(repr, lost))} has not converged: loadings and their standard errors are "
            "not valid",
            "Allow more starts with rotation_args={'starts': 100}, a larger epsilon of geomin, or another rotation",
        ),
    )


def no_convergence(stop: str, count: int, flat: Sequence[str]) -> str:
    """What happened where the optimiser stopped after so many iterations without a maximum.

    Parameters
    ----------
    stop : str
        See `Optimum.stop`.
    count : int
    flat : sequence of str
        Parameters with which the likelihood hardly changes.
    """
    after = f"the optimiser stopped after {count} iterations ({stop}); "
    if stop == "unbounded":
        return (
            f"{after}the likelihood of this model has no maximum near: it exceeds that of the saturated model"
        )
    if _stopped_early(stop, count):
        return f"{after}estimates and tests are not valid"
    return f"{after}estimates and tests are not valid; the likelihood hardly changes with {', '.join(flat)}"


def no_identification(names: Sequence[str]) -> str:
    """What it means that the information cannot tell these parameters apart."""
    return f"the information matrix is singular: the data cannot tell apart {', '.join(names)}"


def require_feasible(objective: Objective, optimum: Optimum) -> None:
    """Refuse a solution at which constraints do not hold: nothing of it is valid.

    Raises
    ------
    ModelError
        Naming the constraints, and by how much they do not hold.
    """
    constraints = objective.constraints
    if optimum.stop != "infeasible" or constraints is None:
        return
    listed = ", ".join(f"'{text}' (by {gap:.3g})" for text, gap in constraints.violated(optimum.theta))
    raise ModelError(
        f"the optimiser found no estimates at which these constraints hold: {listed}, in {len(optimum.diary)} "
        "iterations. If they can hold together, give start() values nearer to where they do, or more max_iterations="
    )


def _largest(objective: Objective) -> str:
    """How many clusters there are of the largest size."""
    largest = [f"{s.counts[-1]:.0f} of {s.sizes[-1]:.0f} units" for s in objective.statistics if s.unit]
    return f" ({'; '.join(largest)})" if largest else ""


def unidentified_by_count(objective: Objective, theta: Floats, sampling: Sampling, df: int) -> Sampling:
    """Sampling covariance of a model that may have more free parameters than there are moments.

    The information then has no more independent directions than there are moments, though rounding may let it look
    regular; the parameters with a part in its least certain direction are not identified.

    Parameters
    ----------
    objective : Objective
    theta : ndarray, shape (npar,)
    sampling : Sampling
    df : int
        Moments less free parameters.
    """
    if df >= 0 or sampling.unidentified:
        return sampling
    lost = sorted(_core.flat_direction(objective.core, theta))
    vcov = sampling.vcov.copy()
    vcov[lost] = vcov[:, lost] = np.nan
    return replace(sampling, vcov=vcov, unidentified=tuple(lost))


def _identification(objective: Objective, sampling: Sampling, optimum: Optimum) -> Iterator[Problem]:
    if sampling.unidentified:
        names = objective.table.names()
        yield Problem(
            "unidentified",
            no_identification([names[i] for i in sampling.unidentified]),
            "Fix one of them, set a loading or a factor variance, or drop a path; their standard errors are missing",
        )
    if not sampling.positive_definite and optimum.converged:
        yield Problem(
            "saddle_point",
            "the observed information is not positive definite, so this is not a strict maximum of the likelihood",
            'Try other start() values, or information="expected"; standard errors are missing',
        )


def _border(objective: Objective, optimum: Optimum) -> Iterator[Problem]:
    """What is at the border of the cone, and what the likelihood has lost there."""
    names = objective.table.names()
    at = [f"{names[i]} is 0" for i in np.flatnonzero(optimum.active)]
    for index, variables in optimum.border.singular if optimum.border else ():
        block = objective.blocks[index]
        names_of = dict(zip(block.places.tolist(), block.names, strict=True))  # products of slopes have none
        listed = ", ".join(names_of[k] for k in variables if k in names_of)
        at.append(f"the covariance matrix of {listed}{_where(objective, block)} is singular")
    zeros = ["What is 0 has no standard error, nor have loadings of a factor without variance."]
    alone = optimum.border is not None and any(len(own) == 1 for _, own in optimum.border.singular)
    zeros = zeros if optimum.active.any() or alone else []
    integrated = any(one.integral is not None for one in objective.statistics)  # which leaves no chi-square
    lost = 0.5 * (optimum.value - optimum.natural)
    loss = ""
    if np.isfinite(lost):
        loss = f"; with negative variances the log-likelihood would be {lost:.3g} higher"
    yield Problem(
        "boundary",
        f"the maximum lies where covariance matrices are only just positive semidefinite: {'; '.join(at)}{loss}",
        " ".join([*zeros, *([] if integrated else [MIXTURE])])
        or "Some of these variables are linear combinations of the others: fewer of them, or a simpler level, may do",
    )


def _maxima(objective: Objective, optimum: Optimum) -> Iterator[Problem]:
    near = [value for value in optimum.maxima if value < optimum.value + NEAR]
    if not near or not optimum.converged:
        return
    values = [-0.5 * value - objective.covariate_llf for value in (optimum.value, *near)]
    others = ", ".join(f"{value:.4f}" for value in values[1 : MOST + 1])
    yield Problem(
        "several_maxima",
        f"the likelihood has several local maxima: log-likelihoods {values[0]:.4f}, which is taken, and {others}",
        "Estimates may differ much for little difference in likelihood; more starts= make a higher one less likely",
    )


def quadrature_problems(found: QuadratureAccuracy | None) -> Iterator[Problem]:
    """Integrals over random slopes that more nodes change."""
    if found is not None and not abs(found.change) < COARSE:
        yield Problem(
            "coarse_quadrature",
            f"with {found.finer} nodes in place of {found.nodes} the log-likelihood at the estimates changes by "
            f"{found.change:.2g}",
            f"Estimates are not accurate to all digits: nodes={found.finer}",
        )


def _bounds(objective: Objective, optimum: Optimum) -> Iterator[Problem]:
    if optimum.border is not None:
        yield from _border(objective, optimum)
        return
    if optimum.active.any():
        names = objective.table.names()
        at = [names[i] for i in np.flatnonzero(optimum.active)]
        yield Problem(
            "boundary",
            f"estimates lie on their bounds: {', '.join(at)}",
            "They have no standard errors, and chi-square tests are approximate",
        )
    if optimum.active_inequalities and objective.constraints is not None:
        texts = (objective.constraints.inequalities.texts[i] for i in optimum.active_inequalities)
        yield Problem(
            "boundary",
            f"inequality constraints are active: {', '.join(map(repr, texts))}",
            "Standard errors take them for equalities, the degrees of freedom do not, and chi-square tests are "
            "approximate",
        )


def _where(objective: Objective, block: BlockMap) -> str:
    """At which level, and of which group, in words; nothing where there is only one."""
    where = level_place(block.level, objective.table.nlevels)
    if objective.table.ngroups > 1:
        where += f" of group {objective.table.group_labels[block.group - 1]!r}"
    return where


def _impropriety(objective: Objective, theta: Floats, level: int | None) -> Iterator[Problem]:
    instead = "" if objective.loss else 'take the maximum without negative variances, space="psd", '
    remedy = (
        f"Sampling error, too few clusters or a wrong model can cause this; {instead}fix the variance at 0, or "
        "simplify that level"
    )
    for index, negative, indefinite in objective.plan.improper(objective.core, theta):
        block = objective.blocks[index]
        if level not in (None, block.level):
            continue
        where = _where(objective, block)
        if negative:
            at = {place: name for name, place in zip(block.names, block.places.tolist(), strict=True)}
            names = ", ".join(at[k] for k in negative)
            yield Problem("improper", f"negative variance{where}: {names}", remedy)
        if indefinite:
            yield Problem("improper", f"the {PARTS[indefinite]}{where} is not positive definite", remedy)


def separation_problems(objective: Objective, theta: Floats, sampling: Sampling) -> Iterator[Problem]:
    """Ordered variables whose likelihood has its maximum where paths or thresholds are infinite.

    Where what explains a variable separates its categories (Albert & Anderson, 1984), probabilities go to 0 and 1 as
    paths grow, and the steps of the search become small all the same. Known by paths that move the response by tens of
    its residual standard deviations, or of which not even that much is known.
    """
    table = objective.table
    values = objective.row_values(theta)
    errors = np.sqrt(np.maximum(sampling.vcov.diagonal(), 0))
    implied = {group: objective.implied(theta, group) for group in range(1, table.ngroups + 1)}
    lost: dict[str, list[str]] = {}
    names = table.names()
    # of all levels that a variable stands at: with much of it between clusters, paths and thresholds are great
    residual: dict[tuple[int, str], float] = {}
    for row, value in zip(table.rows, values, strict=True):
        if row.op == "~~" and row.lhs == row.rhs:
            known = residual.get((row.group, row.lhs), 0.0)
            residual[row.group, row.lhs] = known + max(float(value), 0.0)
    for row, value in zip(table.rows, values, strict=True):
        response = row.rhs if row.op == "=~" else row.lhs
        if not row.free or row.op not in ("~", "=~", "|") or response not in table.ordered.thresholds:
            continue
        spread = 1.0
        if row.op != "|":
            cov = implied[row.group][row.level].cov
            explains = row.lhs if row.op == "=~" else row.rhs
            spread = math.sqrt(max(float(np.asarray(cov.loc[explains, explains])), 0.0))
        spread /= math.sqrt(residual.get((row.group, response), 0.0) or 1.0)
        if (row.op != "|" and abs(value) * spread > FAR) or errors[row.free - 1] * spread > VAGUE:
            lost.setdefault(response, []).append(names[row.free - 1])
    for response, own in lost.items():
        yield Problem(
            "not_converged",
            f"the likelihood of {response!r} rises as far as {', '.join(own)} are taken: what explains it separates "
            "its categories, and there is no finite maximum",
            "Estimates are not valid. Look at the categories by each covariate; leave out the one that separates them, "
            "or join categories",
        )


def _disorder(objective: Objective, optimum: Optimum) -> Iterator[Problem]:
    """Thresholds out of order, which constraints can make of least squares: a likelihood has no value there."""
    table = objective.table
    if not table.ordered.thresholds or not optimum.converged:
        return
    values, out = objective.row_values(optimum.theta).tolist(), []
    for group in range(1, table.ngroups + 1):
        where = f" in group {table.group_labels[group - 1]!r}" if table.ngroups > 1 else ""
        for name, own in table.threshold_values(values, group).items():
            steps = enumerate(pairwise(own), 2)
            out += [f"t{k} of {name}{where}" for k, (below, above) in steps if not below < above]
    if out:
        yield Problem(
            "improper",
            f"thresholds that do not lie above the one before: {', '.join(out)}",
            "A category would have a negative probability: look at what is fixed or equal among the thresholds",
        )
