"""The benchmark: its cases are what they say, and its judgements hold on given numbers. Nothing is timed."""

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import msem

BENCH = Path(__file__).parents[1] / "bench"
sys.path.append(str(BENCH))

import casedata  # noqa: E402
import cases  # noqa: E402
import columnar  # noqa: E402
import compare  # noqa: E402
import run  # noqa: E402

ALL = [case for group in cases.SETS.values() for case in group]
names = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)


def test_names_are_unique():
    assert len({case.name for case in ALL}) == len(ALL)


def test_every_peer_has_a_command_and_a_case():
    assert {peer for case in ALL for peer in case.peers} == set(run.PEERS)
    files = [Path(part) for command in run.COMMANDS.values() for part in command if "bench" in part]
    assert len(files) == len(run.COMMANDS)
    assert all(path.exists() for path in files)


@names
def test_models_parse(case):
    single = "level:" not in case.model
    assert msem.compile(case.model, **({} if single else {"missing": case.missing}))


@names
def test_every_peer_can_fit_the_case_that_goes_before(case):
    warm = cases.BY_NAME[case.warm]
    assert set(case.peers) <= set(warm.peers)
    assert warm.missing == case.missing


@pytest.mark.parametrize("name", ["demo", "demo_holes", "intercepts", "single"])
def test_small_data_have_the_variables_of_the_model(name):
    case = cases.BY_NAME[name]
    data = case.make()
    fit = msem.sem(case.model, data, cluster="cluster" if "cluster" in data else None, missing=case.missing)
    assert fit.status == "ok"


def test_growth_varies_one_thing_at_a_time():
    base = asdict(cases.BASE)
    designs = [asdict(case.design) for case in cases.GROWTH]
    changed = [[field for field in base if design[field] != base[field]] for design in designs]
    assert changed[0] == []
    assert all(len(fields) == 1 for fields in changed[1:])
    assert {fields[0] for fields in changed[1:]} == set(base)


@pytest.mark.parametrize("case", cases.GROWTH, ids=lambda case: case.name)
def test_sizes_of_clusters_are_those_of_the_design(case):
    design = case.design
    sizes = casedata.spread_sizes(design.clusters, design.rows // design.clusters, design.sizes)
    assert sizes.sum() == design.rows
    assert len(sizes) == design.clusters
    assert len(np.unique(sizes)) == design.sizes
    assert sizes.min() > 0


def test_intercept_data_have_the_rows_and_clusters_they_say():
    data = casedata.intercept_data(1, 40, 480)
    assert len(data) == 480
    assert data["cluster"].nunique() == 40
    assert data.groupby("cluster")["w"].nunique().max() == 1


@pytest.mark.parametrize("shuffled", [False, True])
def test_blocks_are_one_sample(shuffled, tmp_path):
    columnar.save_arrays(tmp_path, 1_000, 50, shuffled, 1)
    frame = columnar.load_frame(tmp_path)
    assert frame.shape == (1_000, columnar.VARIABLES + 1)
    assert frame["cluster"].is_monotonic_increasing is not shuffled
    if not shuffled:
        assert set(frame["cluster"].value_counts()) == {20}


def test_cases_of_a_peer_are_those_it_can_fit():
    assert [case.name for case in run.chosen(None, None, ["lme4"])] == ["intercepts", "intercepts_large"]
    assert [case.name for case in run.chosen(None, None, ["semopy"])] == ["single"]
    assert run.chosen(["demo"], None, ["lme4"]) == [cases.BY_NAME["demo"]]
    assert run.chosen(None, "growth", ["lavaan"]) == list(cases.GROWTH)


def test_result_files_are_named_by_set_or_peers():
    assert run.file_name(None, ["lavaan"]) == "latest.csv"
    assert run.file_name(None, ["lme4", "semopy"]) == "lme4_semopy.csv"
    assert run.file_name("growth", ["lavaan"]) == "growth.csv"


def test_rows_have_ratios_and_gaps():
    case = cases.BY_NAME["demo"]
    runs = {
        ("ML", "msem"): [{"seconds": "1", "logl": "-10"}, {"seconds": "3", "logl": "-10"}],
        ("ML", "lavaan"): [{"seconds": "20", "logl": "-10.5"}],
        ("ML", "openmx"): [{"note": "stopped after 900 s at 500 MiB"}],
    }
    msem_row, lavaan, openmx = run.summarise(case, runs)
    assert (msem_row["seconds"], msem_row["ratio"], msem_row["gap"]) == ("2", "1", "0.000000")
    assert (lavaan["ratio"], lavaan["gap"]) == ("10", "0.500000")
    assert (openmx["seconds"], openmx["note"]) == ("", "stopped after 900 s at 500 MiB")


LIMITS = compare.Limits(relative=1.1, absolute=0.005, logl=1e-6)


@pytest.mark.parametrize(
    ("base", "head", "slower"),
    [
        ([1.0, 1.0, 1.0], [1.2, 1.2, 1.2], True),
        ([1.0, 1.0, 1.0], [1.05, 1.05, 1.05], False),  # within the relative limit
        ([0.01, 0.01, 0.01], [0.014, 0.014, 0.014], False),  # within the absolute limit
        ([1.0, 2.0, 1.0], [1.0, 2.0, 5.0], False),  # one busy moment
        ([1.2, 1.2, 1.2], [1.0, 1.0, 1.0], False),
    ],
)
def test_slower_is_beyond_both_limits(base, head, slower):
    found = compare.verdict(base, head, -100.0, -100.0, LIMITS)
    assert found.slower is slower
    assert found.differs is False
    assert found.text == ("slower" if slower else "ok")


def test_ratios_are_those_of_pairs():
    found = compare.verdict([1.0, 2.0, 4.0], [2.0, 3.0, 4.0], 0.0, 0.0, LIMITS)
    assert (found.lowest, found.ratio, found.highest) == (1.0, 1.5, 2.0)
    assert found.difference == 1.0


@pytest.mark.parametrize(
    ("base", "head", "differs"),
    [
        (-100.0, -100.0 + 5e-7, False),
        (-100.0, -99.9999, True),
        (-7e6, -7e6 + 1e-4, False),
        (-1.0, np.nan, True),
    ],
)
def test_log_likelihoods_agree_to_what_can_be_computed(base, head, differs):
    assert compare.verdict([1.0], [1.0], base, head, LIMITS).differs is differs


def test_pairs_must_be_complete():
    with pytest.raises(ValueError, match="zip"):
        compare.verdict([1.0, 1.0], [1.0], 0.0, 0.0, LIMITS)
