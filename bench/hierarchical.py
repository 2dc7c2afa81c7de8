"""Time models of three levels and of crossed classifications, beside lme4: `python bench/hierarchical.py`.

Frame in, summary out with estimates, standard errors and chi-square, the better of two runs, against the better of two
of `lmer()` and its summary on the same data. The log-likelihoods stand beside the times. The crossing has the numbers
of InstEval of lme4: 73,421 ratings of 1,128 lecturers by 2,972 students. Prints a Markdown table and writes
`results/hierarchical.csv`; needs Rscript with lme4.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import msem
from study import RESULTS, machine, write_table

HERE = Path(__file__).parent
SEED = 1
INTERCEPTS = "level: 1\n y ~~ y\nlevel: 2\n y ~~ y\nlevel: 3\n y ~~ y"
SLOPES = 'level: 1\n y ~ rv("s")*x\nlevel: 2\n y ~~ y\n s ~~ s + y\nlevel: 3\n y ~~ y'


def ratings(count: int = 73_421, students: int = 2_972, lecturers: int = 1_128) -> pd.DataFrame:
    """Ratings of lecturers, some of whom have many, by students."""
    rng = np.random.default_rng(SEED)
    student = np.concatenate([np.arange(students), rng.integers(0, students, count - students)])
    popular = (rng.beta(1, 3, count - lecturers) * lecturers).astype(int)
    lecturer = rng.permutation(np.concatenate([np.arange(lecturers), popular]))
    y = 3.2 + rng.normal(0, 1.1, count) + rng.normal(0, 0.3, students)[student]
    return pd.DataFrame(
        {"y": y + rng.normal(0, 0.5, lecturers)[lecturer], "student": student, "lecturer": lecturer}
    )


def pupils(schools: int = 400, classes: int = 10, size: int = 25) -> pd.DataFrame:
    """Pupils in classes in schools, 100,000 of them, in classes of different sizes."""
    rng = np.random.default_rng(SEED)
    count = schools * classes
    sizes = rng.integers(size - 10, size + 11, count)
    klass = np.repeat(np.arange(count), sizes)
    school = klass // classes
    y = rng.normal(size=len(klass)) + rng.normal(0, 0.5, count)[klass] + rng.normal(0, 0.4, schools)[school]
    return pd.DataFrame({"y": y, "school": school, "class": klass})


def varying_ratings() -> pd.DataFrame:
    """Ratings with a covariate that does something else to every student."""
    data = ratings()
    rng = np.random.default_rng(SEED + 1)
    x, slope = rng.normal(size=len(data)), rng.normal(0.2, 0.3, data["student"].max() + 1)
    return data.assign(x=x, y=data["y"] + slope[data["student"]] * x)


CASES: dict[str, tuple[Any, Any, str, str]] = {
    "crossed": (ratings, "student * lecturer", INTERCEPTS, "y ~ 1 + (1 | student) + (1 | lecturer)"),
    "crossed slopes": (
        varying_ratings,
        "student * lecturer",
        SLOPES,
        "y ~ x + (1 + x | student) + (1 | lecturer)",
    ),
    "three levels": (pupils, ["school", "class"], INTERCEPTS, "y ~ 1 + (1 | school) + (1 | class)"),
}


def ours(data: pd.DataFrame, cluster: Any, model: str) -> tuple[float, float]:
    """Seconds and log-likelihood of msem."""
    best, llf = np.inf, np.nan
    for _ in range(2):
        began = time.perf_counter()
        fit = msem.sem(model, data, cluster=cluster)
        fit.summary()
        best, llf = min(best, time.perf_counter() - began), fit.llf
    return best, llf


def theirs(data: pd.DataFrame, formula: str) -> dict[str, str]:
    """What lme4 reports."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("data.csv", "result.txt")]
        data.to_csv(paths[0], index=False)
        subprocess.run(["Rscript", HERE / "run_lme4_intercepts.R", formula, *paths], check=True)
        return dict(line.split("\t") for line in Path(paths[1]).read_text().splitlines())


def main() -> None:
    about = machine()
    rows: list[dict[str, Any]] = []
    print("| case | rows | msem | lme4 | ratio | gap of the log-likelihood |\n|---|---|---|---|---|---|")
    for name, (make, cluster, model, formula) in CASES.items():
        data = make()
        seconds, llf = ours(data, cluster, model)
        peer = theirs(data, formula)
        other, logl = float(peer["seconds"]), float(peer["logl"])
        rows.append({"case": name, "program": "msem", "seconds": seconds, "ratio": "", "logl": llf} | about)
        rows.append(
            {
                "case": name,
                "program": f"lme4 {peer['version']}",
                "seconds": other,
                "ratio": other / seconds,
                "logl": logl,
            }
            | about
        )
        print(
            f"| {name} | {len(data):,} | {seconds:.2f} s | {other:.2f} s | {other / seconds:.1f} | {llf - logl:.1e} |"
        )
    write_table(rows, RESULTS / "hierarchical.csv")


if __name__ == "__main__":
    main()
