"""Further tables of a summary, as text and HTML."""

from __future__ import annotations

from typing import get_args

import pytest

import msem
from msem.fits.reporting import LARGEST, SummaryTable

MODEL = "level: 1\nfw =~ y1 + y2 + y3\nfw ~ x1\nlevel: 2\nfb =~ y1 + y2 + y3\nfb ~ w1\n"
TITLES = {
    "icc": "Intraclass Correlations",
    "reliability": "Reliability",
    "effects": "Effects",
    "srmr": "Root Mean Square Residuals",
    "residuals": "Standardized Residuals",
    "modification_indices": "Modification Indices",
}


@pytest.fixture(scope="module")
def fit() -> msem.Fit:
    return msem.sem(MODEL, msem.load_demo(), cluster="cluster")


def test_every_table_has_a_title(fit: msem.Fit) -> None:
    assert set(TITLES) == set(get_args(SummaryTable))
    text, html = fit.summary(tables=list(TITLES)), fit.to_html(tables=list(TITLES))
    at = [text.index(f"\n{title}:\n") for title in TITLES.values()]
    assert at == sorted(at)
    assert all(f"<b>{title}</b>" in html for title in TITLES.values())
    assert not any(f"\n{title}:\n" in fit.summary() for title in TITLES.values())


def test_numbers_are_those_of_the_method(fit: msem.Fit) -> None:
    shown = fit.summary(tables=["modification_indices"]).partition("Modification Indices:")[2]
    expected = fit.modification_indices()
    lines = shown.strip().splitlines()
    assert len(lines) == 1 + min(LARGEST, len(expected))
    assert lines[0].split() == list(expected.columns)
    assert lines[1].split()[5] == f"{expected['mi'].iloc[0]:.3f}"


def test_residuals_come_largest_first(fit: msem.Fit) -> None:
    shown = fit.summary(tables=["residuals"]).partition("Standardized Residuals:")[2]
    largest = fit.residuals("standardized")["z"].abs().max()
    assert f"{largest:.3f}" in shown.strip().splitlines()[1]


def test_unknown_tables_are_refused(fit: msem.Fit) -> None:
    with pytest.raises(ValueError, match="tables must be one of"):
        fit.summary(tables=["iccs"])  # type: ignore[list-item]


def test_to_frame_is_the_table_of_estimates(fit: msem.Fit) -> None:
    assert fit.to_frame().equals(fit.estimates())
