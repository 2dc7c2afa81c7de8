"""Time fits of ordered variables in clusters, end to end.

    python bench/ordered.py
    python bench/ordered.py --cases four --repeats 9

Frame in, fit with errors and tests out, by WLSMV, and by maximum likelihood without residuals between clusters (`ml`,
with how much its log-likelihood changes with twice as many nodes). One factor at each level, 200 clusters. Seconds are
the least of the repeats, of the clock and of the processor.
Writes `results/ordered.csv`.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

import msem
from study import command_line, machine, report


@dataclass(frozen=True)
class Case:
    """Ordered variables with so many categories, of so many units in a cluster."""

    variables: int
    categories: int
    sizes: tuple[int, int]  # the least, and one more than the greatest
    covariates: int = 0
    nclusters: int = 200
    estimator: str = "WLSMV"

    def data(self) -> pd.DataFrame:
        rng = np.random.default_rng(1)
        cluster = np.repeat(np.arange(self.nclusters), rng.integers(*self.sizes, self.nclusters))
        between, within = rng.normal(size=self.nclusters), rng.normal(size=len(cluster))
        columns = {f"x{k + 1}": rng.normal(size=len(cluster)) for k in range(self.covariates)}
        own = 0.4 * np.sum(list(columns.values()), axis=0)
        for k in range(self.variables):
            y = 0.8 * within + 0.6 * between[cluster] + own + rng.normal(size=len(cluster))
            if self.estimator != "ML":
                y += 0.5 * rng.normal(size=self.nclusters)[cluster]
            cuts = np.quantile(y, np.linspace(0, 1, self.categories + 1)[1:-1])
            columns[f"u{k + 1}"] = np.searchsorted(cuts, y)
        return pd.DataFrame(columns).assign(cluster=cluster)

    @property
    def names(self) -> list[str]:
        return [f"u{k + 1}" for k in range(self.variables)]

    @property
    def model(self) -> str:
        items = " + ".join(self.names)
        within = [f"  fw =~ {items}"]
        if self.covariates:
            within.append("  fw ~ " + " + ".join(f"x{k + 1}" for k in range(self.covariates)))
        between = [f"  fb =~ {items}"]
        if self.estimator == "ML":  # an ordered variable with a residual there is a dimension of the integral
            between += [f"  {name} ~~ 0*{name}" for name in self.names]
        return "\n".join(["level: 1", *within, "level: 2", *between])


CASES = {
    "binary": Case(4, 2, (5, 16)),
    "four": Case(4, 4, (5, 16)),
    "five": Case(4, 5, (5, 16)),
    "covariates": Case(4, 4, (5, 16), covariates=2),
    "ten": Case(10, 5, (10, 11)),
    "ml": Case(4, 2, (10, 11), estimator="ML"),
}


def fitted(case: Case, data: pd.DataFrame, nodes: int = 0) -> msem.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return msem.sem(
            case.model, data, cluster="cluster", ordered=case.names, estimator=case.estimator, nodes=nodes
        )


def row_of(name: str, repeats: int) -> dict[str, object]:
    case = CASES[name]
    data, wall, processor = case.data(), [], []
    for _ in range(repeats + 1):  # the first one warms up
        begun, used = time.perf_counter(), time.process_time()
        fit = fitted(case, data)
        wall.append(time.perf_counter() - begun)
        processor.append(time.process_time() - used)
    ml = case.estimator == "ML"
    return {
        "case": name,
        "units": len(data),
        "seconds": f"{min(wall[1:]):.4g}",
        "cpu_seconds": f"{min(processor[1:]):.4g}",
        "repeats": repeats,
        "chisq": "" if ml else f"{fit.fit_measures()['chisq']:.6f}",
        "more_nodes": f"{fitted(case, data, nodes=30).llf - fit.llf:.1e}" if ml else "",
    }


def main() -> None:
    """Run, print and write."""
    parser = command_line(__doc__, "ordered", repeats=5)
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    given = parser.parse_args()
    report([row_of(name, given.repeats) for name in given.cases], machine(), given.output)


if __name__ == "__main__":
    main()
