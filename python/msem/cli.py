"""Command line: `msem demo`, `msem fit`, `msem describe`, `msem diagram` and `msem summarize`."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from msem.data.clusterfile import is_statistics
from msem.data.clusters import ClusterStatistics
from msem.data.columns import numeric_columns
from msem.data.demo import load_demo
from msem.data.files import read_chunks, read_data
from msem.data.moments import LevelMoments
from msem.data.storage import distinct_files, existing, replacing
from msem.data.streams import summarize
from msem.errors import DataError, MsemError, MsemWarning
from msem.fits.decomposition import segregated
from msem.fits.description import Description, describe
from msem.fits.drawing import diagram
from msem.fits.fit import Fit
from msem.fits.publication import table
from msem.fits.reporting import SummaryTable
from msem.fits.sem import sem
from msem.fits.synopsis import compare
from msem.output.tables import format_matrix
from msem.pictures.graph import Errors
from msem.settings import Settings
from msem.version import __version__

ARROW = {".parquet", ".pq", ".arrow", ".feather", ".ipc"}
DEMO_MODEL = """\
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1 + x2 + x3
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1 + w2
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; default: those of the process.

    Returns
    -------
    int
        Exit status: 0, or 1 if the model or the data cannot be used.
    """
    arguments = parser().parse_args(argv)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MsemWarning)
        status = _run(arguments)
    for warning in caught:
        if issubclass(warning.category, MsemWarning):
            print(f"warning: {warning.message}", file=sys.stderr)
    return status


def _run(arguments: argparse.Namespace) -> int:
    """Run a command; what is wrong with its input is one line."""
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MsemError, OSError, ImportError) as error:
        print(f"msem: {error}", file=sys.stderr)
        return 1
    return status


def parser() -> argparse.ArgumentParser:
    """Describe the commands and their arguments."""
    out = argparse.ArgumentParser(prog="msem", description="Multilevel structural equation modelling.")
    out.add_argument("--version", action="version", version=f"msem {__version__}")
    commands = out.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser("demo", help="fit the embedded data in every way and compare")
    demo.set_defaults(run=run_demo)
    add_fit(commands.add_parser("fit", help="fit a model file to a file of data"))
    add_describe(
        commands.add_parser("describe", help="describe clustered data: the first table of an article")
    )
    add_diagram(commands.add_parser("diagram", help="draw the path diagram of a model file, or of its fit"))
    add_summarize(
        commands.add_parser("summarize", help="reduce files to statistics that can be shared and fitted")
    )
    return out


def add_fit(fit: argparse.ArgumentParser) -> None:
    """Arguments of `msem fit`."""
    fit.add_argument("model", type=Path, help="text file with the model")
    fit.add_argument(
        "data",
        type=Path,
        nargs="+",
        help="text (.csv, also compressed), Parquet, Stata, SPSS or SAS file, or files of `msem summarize` to add",
    )
    add_reading(fit)
    fit.add_argument(
        "--tables", nargs="+", default=(), choices=get_args(SummaryTable), help="further tables to print"
    )
    fit.add_argument(
        "--out",
        type=Path,
        help="write to this file: estimates as .csv or .parquet, the summary as .html, "
        "a table for publication as .docx, .tex or .md, the whole fit as .json",
    )
    fit.add_argument("--standardized", action="store_true", help="add standardized estimates")
    add_options(fit)
    fit.set_defaults(run=run_fit)


def add_reading(command: argparse.ArgumentParser) -> None:
    """How a file of data is to be read."""
    option = command.add_argument_group("options of text files").add_argument
    option(
        "--na-values",
        nargs="+",
        default=(),
        metavar="CODE",
        help="codes for missing values, such as -999, in files of any kind; '.' is one",
    )
    option(
        "--verbatim",
        nargs="+",
        default=(),
        metavar="COLUMN",
        help="columns of text in which NA and None are labels",
    )
    option(
        "--names", nargs="+", metavar="NAME", help="names of the columns, where the file has no line of them"
    )
    option("--encoding", help="default: utf-8")


def reading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of `add_reading`, as `read_data` takes them."""
    names = ("verbatim", "names", "encoding")
    return {"missing": arguments.na_values} | {name: getattr(arguments, name) for name in names}


def add_describe(command: argparse.ArgumentParser) -> None:
    """Arguments of `msem describe`."""
    command.add_argument("data", type=Path, help="text, Parquet, Stata, SPSS or SAS file")
    command.add_argument("--cluster", required=True, help="column with the cluster ids")
    command.add_argument("--variables", nargs="+", metavar="NAME", help="default: all numeric columns")
    command.add_argument(
        "--out",
        type=Path,
        help="write the table to this file: .csv, .parquet, .html, .docx, .tex, .md or .json",
    )
    add_reading(command)
    command.set_defaults(run=run_describe)


def add_options(command: argparse.ArgumentParser) -> None:
    """Options of `msem.sem`, under their names; what is not given is not among the arguments."""
    option = command.add_argument_group("options of the fit", argument_default=argparse.SUPPRESS).add_argument

    def columns(name: str, about: str) -> None:
        option(name, metavar="COLUMN", help=about)

    option(
        "--cluster",
        action="append",
        metavar="COLUMN",
        help="column with the cluster ids, for two-level models; for three levels repeated or separated by commas, the "
        "highest clusters first; 'pupil * lecturer' for crossed ones",
    )
    columns("--group", "column with the groups")
    option("--group-equal", nargs="+", metavar="KIND", help="loadings, intercepts, ...")
    option("--group-partial", nargs="+", metavar="PARAMETER", help="exceptions, such as f=~y2")
    option("--constraints", nargs="+", metavar="TEXT", help="such as 'a == b' or 'ab := a*b'")
    option("--ordered", nargs="+", metavar="VARIABLE", help="variables whose values are ordered categories")
    option("--parameterization", metavar="KIND", help="of ordered variables: delta or theta")
    option("--link", metavar="LINK", help="of ordered variables by maximum likelihood: probit or logit")
    option("--estimator", help="ML (default), MLR, MLF, or least squares: WLSMV, ULSMV, WLS, GLS, ULS")
    option("--missing", help="listwise (default), fiml, or fiml.x")
    option("--auxiliary", nargs="+", metavar="VARIABLE", help="variables that tell about missing values")
    add_sampling(option)
    option("--replicate-weights", nargs="+", metavar="COLUMN", help="columns with replicate weights")
    option(
        "--replicate-scale",
        type=_number_or_name,
        metavar="KIND",
        help="how they were made, such as brr, fay, jackknife1, or the factor of the squared deviations",
    )
    option("--random-x", action="store_false", dest="fixed_x", help="estimate the moments of covariates too")
    option("--std-lv", action="store_true", help="set the variances of latent variables to 1")
    option("--orthogonal", action="store_true", help="set covariances of exogenous latent variables to 0")
    option("--meanstructure", action=argparse.BooleanOptionalAction, help="means of a single-level model")
    option("--penalty", metavar="KIND", help="between: keeps between variances off 0")
    option("--rotation", metavar="KIND", help="of exploratory blocks: geomin (default), oblimin, ...")
    option("--information", metavar="KIND", help="observed, expected, or first_order")
    option("--se", metavar="KIND", help="standard, robust, jackknife1, replicate, bootstrap, or none")
    option("--test", nargs="+", metavar="KIND", help="tests beside the standard one, such as yuan.bentler")
    option("--ci", metavar="KIND", help="wald (default) or transformed")
    option("--bootstrap", type=int, metavar="N", help="replicates for --se bootstrap; default: 1000")
    option("--seed", type=int, metavar="N", help="for --se bootstrap")
    option("--space", metavar="KIND", help="auto (default), natural, or psd")
    option("--starts", type=int, metavar="N", help="random starts beside the usual ones")
    option("--nodes", type=int, metavar="N", help="of quadrature, for each random slope")
    option("--max-iterations", type=int, metavar="N", help="default: 500")
    option("--tolerance", type=float, metavar="X", help="of the optimiser; default: 1e-12")
    option("--threads", type=int, metavar="N", help="default: one for each processor")


def add_sampling(option: Callable[..., Any]) -> None:
    """Options that say how rows were sampled."""
    for name, about in (
        ("--weights", "column with the sampling weights of units"),
        (
            "--cluster-weights",
            "column with the sampling weights of clusters; for three levels two separated by a comma, as in 'v,w': "
            "those of the highest first, ',w' for the lower ones only",
        ),
        ("--psu", "column with the primary sampling units, where they are not the clusters"),
        ("--strata", "column with the strata"),
        ("--fpc", "column with the sampling fractions of strata"),
    ):
        option(name, metavar="COLUMN", help=about)
    option("--weights-scale", metavar="KIND", help="size (default), effective, or none")
    option("--single-psu", metavar="KIND", help="error (default), centre, or certainty")


def _number_or_name(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _clusters(given: Sequence[str]) -> list[str]:
    """Columns that were given one by one, or as one list with commas."""
    return [name.strip() for name in given[0].split(",")] if len(given) == 1 else list(given)


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of `add_options` that were given."""
    names = {own.name for own in fields(Settings)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    if "cluster" in given:
        given["cluster"] = _clusters(given["cluster"])
    if "," in given.get("cluster_weights", ""):
        given["cluster_weights"] = [name or None for name in _clusters([given["cluster_weights"]])]
    return given


def add_diagram(picture: argparse.ArgumentParser) -> None:
    """Arguments of `msem diagram`."""
    picture.add_argument("model", type=Path, help="text file with the model")
    picture.add_argument(
        "data", type=Path, nargs="*", help="as of msem fit; without data the model is drawn without estimates"
    )
    add_reading(picture)
    picture.add_argument(
        "--out", type=Path, required=True, help="file to write: .svg, .png, .pdf, .dot, .gv or .tex (TikZ)"
    )
    picture.add_argument("--standardized", action="store_true", help="show standardized estimates")
    picture.add_argument(
        "--errors", choices=get_args(Errors), default="stars", help="beside estimates; default: stars"
    )
    picture.add_argument("--means", action="store_true", help="show means and intercepts")
    picture.add_argument("--level", help="draw one level only: its number or name, or within, between")
    add_options(picture)
    picture.set_defaults(run=run_diagram)


def add_summarize(summary: argparse.ArgumentParser) -> None:
    """Arguments of `msem summarize`."""
    summary.add_argument(
        "data", type=Path, nargs="+", help="CSV files, or Parquet or Arrow files or directories of them"
    )
    summary.add_argument(
        "--cluster",
        required=True,
        help="column with the cluster ids; for three levels two separated by a comma, the highest clusters first",
    )
    summary.add_argument("--variables", nargs="+", metavar="NAME", help="default: all numeric columns")
    summary.add_argument("--keep-clusters", action="store_true", help="keep the statistics of every cluster")
    summary.add_argument(
        "--smallest-cell", type=int, default=0, metavar="N", help="refuse fewer clusters of any one size"
    )
    summary.add_argument("--out", type=Path, required=True, help="file to write, .json or .parquet")
    group = summary.add_argument_group("options of weighted rows", argument_default=argparse.SUPPRESS)
    add_sampling(group.add_argument)
    summary.set_defaults(run=run_summarize)


# What `msem fit --out` writes, by the suffix of the file.
OUTPUTS: dict[str, Callable[[Fit, Path], object]] = {
    ".csv": lambda fit, file: fit.estimates(standardized=True).to_csv(file, index=False),
    ".parquet": lambda fit, file: fit.estimates(standardized=True).to_parquet(file, index=False),
    ".html": lambda fit, file: file.write_text(fit.to_html(), encoding="utf-8"),
    ".docx": lambda fit, file: table(fit).save(file),
    ".tex": lambda fit, file: table(fit).save(file),
    ".md": lambda fit, file: table(fit).save(file),
    ".json": lambda fit, file: fit.save(file),
}


def run_fit(arguments: argparse.Namespace) -> int:
    """Fit a model file and print the summary."""
    require_output(arguments.out, OUTPUTS)
    text = read_model(arguments.model)
    fit = sem(text, read_for(arguments), **given_options(arguments))
    write(fit, arguments.out, OUTPUTS)
    print(fit.summary(fit_measures=True, standardized=arguments.standardized, tables=arguments.tables))
    if arguments.out is not None:
        print(f"\nwritten to {arguments.out}")
    return 0 if fit.converged else 1


# What `msem describe --out` writes.
DESCRIPTIONS: dict[str, Callable[[Description, Path], object]] = {
    ".csv": lambda found, file: found.variables.to_csv(file, index_label="variable"),
    ".parquet": lambda found, file: found.variables.to_parquet(file),
    ".html": lambda found, file: found.table().save(file),
    ".docx": lambda found, file: found.table().save(file),
    ".tex": lambda found, file: found.table().save(file),
    ".md": lambda found, file: found.table().save(file),
    ".json": lambda found, file: found.variables.to_json(file, orient="index"),
}


def run_describe(arguments: argparse.Namespace) -> int:
    """Describe a file of data."""
    require_output(arguments.out, DESCRIPTIONS)
    data = read_data(arguments.data, **reading_options(arguments))
    names = arguments.variables or [name for name in numeric_columns(data) if name != arguments.cluster]
    found = describe(data, cluster=arguments.cluster, variables=names)
    write(found, arguments.out, DESCRIPTIONS)
    print(found)
    if arguments.out is not None:
        print(f"\nwritten to {arguments.out}")
    return 0


def require_output(path: Path | None, kinds: Mapping[str, object]) -> None:
    """Refuse a file to write whose folder does not exist or whose suffix says nothing, before the work is done.

    Raises
    ------
    DataError
    """
    require_folder(path)
    if path is not None and path.suffix.lower() not in kinds:
        raise DataError(
            f"--out {path}: the name must end in one of {', '.join(kinds)}, which says what is written"
        )


def write(found: Any, path: Path | None, kinds: Mapping[str, Callable[[Any, Path], object]]) -> None:
    """Write a file in place of another, if one is asked for."""
    if path is not None:
        with replacing(path) as file:
            kinds[path.suffix.lower()](found, file)


def read_for(arguments: argparse.Namespace) -> pd.DataFrame | ClusterStatistics:
    """The data of a model."""
    group = getattr(arguments, "group", None)
    return read_all(arguments.data, [group] if group else [], **reading_options(arguments))


def run_diagram(arguments: argparse.Namespace) -> int:
    """Draw a model file, fitted to data if there are any."""
    require_folder(arguments.out)
    text = read_model(arguments.model)
    drawn = diagram(
        text,
        read_for(arguments) if arguments.data else None,
        standardized=arguments.standardized,
        errors=arguments.errors,
        means=arguments.means,
        level=arguments.level,
        **given_options(arguments),
    )
    drawn.save(arguments.out)
    print(f"diagram written to {arguments.out}")
    return 0


def require_folder(path: Path | None) -> None:
    """Refuse a file to write whose folder does not exist, before the work is done.

    Raises
    ------
    DataError
        Naming the folder.
    """
    if path is not None and not path.parent.is_dir():
        raise DataError(f"--out {path}: there is no folder {path.parent}")


def read_model(path: Path) -> str:
    """Read a text file.

    Raises
    ------
    DataError
        If it is not text.
    """
    try:
        return Path(existing(path)).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file in UTF-8: {error}") from error


def run_summarize(arguments: argparse.Namespace) -> int:
    """Summarize files, write the statistics and print what they disclose."""
    require_folder(arguments.out)
    paths = distinct_files(arguments.data)
    tables = [path for path in paths if not (path.is_dir() or path.suffix.lower() in ARROW)]
    if tables and len(tables) < len(paths):
        raise DataError(f"{tables[0]} and {paths[0]}: give CSV files, or Parquet and Arrow files, not both")
    chunks = (chunk for path in tables for chunk in read_chunks(path))
    found = summarize(
        chunks if tables else paths,
        cluster=_clusters([arguments.cluster]),
        variables=arguments.variables,
        keep_clusters=arguments.keep_clusters,
        **{name: value for name, value in given_options(arguments).items() if name != "cluster"},
    )
    found.save(arguments.out, smallest_cell=arguments.smallest_cell)
    print(
        f"{found}\nrows left out: {found.dropped_rows + found.dropped_no_cluster + found.dropped_zero} of {found.nrows}"
    )
    print(f"written to {arguments.out}, which discloses\n\n{found.disclosure().to_string()}")
    return 0


def read_all(
    paths: Sequence[Path], labels: Sequence[str] = (), **options: Any
) -> pd.DataFrame | ClusterStatistics:
    """A file of data, or the sum of files of statistics; see `read_data`.

    Raises
    ------
    DataError
        If there are several files and one is not of statistics.
    """
    kept = [path for path in paths if is_statistics(path)]
    if len(kept) < len(paths):
        if len(paths) > 1:
            odd = next(path for path in paths if path not in kept)
            raise DataError(
                f"{odd} is not a file of statistics, and only those can be added: use msem summarize, or give one file"
            )
        return read_data(paths[0], labels=labels, **options)
    first, *others = map(ClusterStatistics.load, kept)
    return sum(others, first)


def run_demo(_: argparse.Namespace) -> int:
    """Every route on the embedded data: saturated matrices, separate, segregated, joint and simultaneous fits."""
    data = load_demo()
    print(f"Model\n\n{DEMO_MODEL}")
    fit = sem(DEMO_MODEL, data, cluster="cluster")
    print(fit.summary(fit_measures=True))

    h1 = fit.saturated
    print("\n")
    for name, moments in zip(("within", "between"), h1.levels, strict=True):
        print(f"Saturated {name} covariance matrix\n\n{format_matrix(moments.cov)}\n")
    within, between = (moments.cov.round(3) for moments in h1.levels)
    means = h1.levels[-1].mean.round(3)
    print(f"Between means\n\n{means.to_string()}")

    published = LevelMoments(
        within,
        between,
        means,
        nobs=fit.nobs,
        nclusters=fit.nclusters or 0,
        cluster_sizes=h1.cluster_sizes,
    )
    levels = segregated(DEMO_MODEL, h1, method="ml")
    table = compare(
        {
            "separate": levels.naive,
            "segregated": levels,
            "joint": sem(DEMO_MODEL, published),
            "simultaneous": fit,
        },
        ops=("=~", "~"),
    )
    for level, name in ((2, "Between"), (1, "Within")):
        print(f"\n\n{name}-level estimates and standard errors\n")
        print(table.loc[level].round(3).to_string())
    print(
        "\nseparate      each saturated matrix taken for observed data (naive standard errors)"
        "\nsegregated    the same estimates with corrected standard errors"
        "\njoint         both levels from the matrices rounded to three decimals and the cluster sizes"
        "\nsimultaneous  maximum likelihood from the data"
    )
    print("\n\nTests of each level's structure\n")
    print(levels.tests().round(3).to_string())
    return 0
