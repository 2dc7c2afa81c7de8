"""Dask data frames: the same statistics as in memory, from several processes, one of which may be killed."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

import msem
from msem.errors import DataError, DataWarning
from test_summarize import NAMES, assert_same, sample

pytestmark = pytest.mark.filterwarnings("default")  # of Dask about its own ports, sockets and event loops
PARTS, ROWS = 24, 250_000


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as connected,
    ):
        yield connected


def shuffled(rows: int = 4) -> pd.DataFrame:
    """Clusters that straddle partitions."""
    whole = pd.concat([sample(seed).assign(g=lambda d, k=seed: d["g"] + 100 * k) for seed in range(rows)])
    return whole.sample(frac=1, random_state=2, ignore_index=True)


@pytest.mark.parametrize("keep", [False, "means", True])
def test_partitions_give_the_statistics_of_the_whole(client: Client, keep: bool) -> None:
    frame = shuffled()
    found = msem.summarize(
        dd.from_pandas(frame, npartitions=11), cluster="g", keep_clusters=keep, client=client
    )
    whole = msem.summarize(frame, cluster="g")
    assert_same(found, whole, 1e-12)
    assert (found.sums is not None) == bool(keep)
    assert found.varying == whole.varying
    assert found.nrows == len(frame)


def test_the_scheduler_at_hand_is_used_without_a_client() -> None:
    frame = shuffled(1)
    assert_same(
        msem.summarize(dd.from_pandas(frame, npartitions=3), cluster="g"), msem.summarize(frame, cluster="g")
    )


def test_parquet_directories_are_read_by_the_workers(client: Client, tmp_path: Path) -> None:
    frame = shuffled()
    dd.from_pandas(frame, npartitions=5).to_parquet(tmp_path)
    found = msem.summarize(dd.read_parquet(tmp_path), cluster="g", variables=NAMES, client=client)
    assert_same(found, msem.summarize(frame, cluster="g"), 1e-12)


def test_partitions_without_complete_rows_count_what_they_lack(client: Client) -> None:
    frame = shuffled().sort_values("g", ignore_index=True).astype({"g": float})
    frame.loc[:20, "y1"] = np.nan
    frame.loc[25, "g"] = np.nan
    parts = dd.concat([dd.from_pandas(frame, npartitions=9), dd.from_pandas(frame.iloc[:0], npartitions=1)])
    with pytest.warns(DataWarning, match="1 rows have no cluster id"):
        found = msem.summarize(parts, cluster="g", client=client)
    with pytest.warns(DataWarning):
        whole = msem.summarize(frame, cluster="g")
    assert_same(found, whole)
    assert (found.dropped, found.dropped_rows, found.nrows) == ({"y1": 21}, 21, len(frame))
    with pytest.raises(DataError, match="no complete row is left of"):
        msem.summarize(dd.from_pandas(frame.assign(y2=np.nan), npartitions=3), cluster="g", client=client)


def test_mistakes_in_a_partition_are_named(client: Client) -> None:
    frame = shuffled().assign(y1=np.where(np.arange(116) == 50, np.inf, 0.5))
    with pytest.raises(DataError, match=r"partition 1: variable 'y1' is infinite in 1 row\(s\).*row 21"):
        msem.summarize(dd.from_pandas(frame, npartitions=4), cluster="g", client=client)
    with pytest.raises(DataError, match="no column 'y9'"):
        msem.summarize(dd.from_pandas(frame, npartitions=4), cluster="g", variables=["y9"])
    odd = dd.from_map(lambda k: sample().astype({"g": [int, str][k]}), range(2), meta=sample().iloc[:0])
    with pytest.raises(DataError, match="are numbers on one side and text on the other"):
        msem.summarize(odd, cluster="g", client=client)


def partition(number: int, seconds: float = 0.0, rows: int = 400) -> pd.DataFrame:
    """Rows that a worker makes; a cluster has rows in all partitions."""
    time.sleep(seconds)
    rng = np.random.default_rng(number)
    values = rng.standard_normal((rows, 4))
    return pd.DataFrame(values, columns=list("abcd")).assign(g=rng.integers(0, 50, rows))


def test_a_worker_that_is_killed_costs_only_time(client: Client) -> None:
    lazy = dd.from_map(partition, range(16), seconds=0.15, meta=partition(0))
    before = set(client.run(os.getpid).values())
    victim = min(before)
    timer = threading.Timer(0.6, os.kill, [victim, signal.SIGKILL])
    timer.start()
    try:
        found = msem.summarize(lazy, cluster="g", client=client)
    finally:
        timer.join()
    assert_same(found, msem.summarize(pd.concat(map(partition, range(16))), cluster="g"), 1e-12)
    client.wait_for_workers(2)
    assert victim not in client.run(os.getpid).values()


def test_a_worker_that_holds_the_data_of_a_bootstrap_may_be_killed(client: Client) -> None:
    fit = msem.sem("y1 ~ x1 + x2", msem.load_demo())
    expected = fit.bootstrap(2000, seed=1, progress=False)
    client.wait_for_workers(2)
    killed = []

    def kill() -> None:
        """The first worker that has anything of this computation."""
        own = client.run(os.getpid)
        while not killed:
            holders = [address for address, keys in client.has_what().items() if keys]
            if holders:
                os.kill(own[holders[0]], signal.SIGKILL)
                killed.append(holders[0])
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        found = fit.bootstrap(2000, seed=1, progress=False, client=client)
    finally:
        killed.append("")  # so that the thread ends if there was nothing to kill
        thread.join()
    assert killed[0]
    pd.testing.assert_frame_equal(found.estimates, expected.estimates, check_exact=True)
    client.wait_for_workers(2)


def peak() -> int:
    """Largest memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_workers_hold_a_partition_at_a_time_and_the_clusters(client: Client) -> None:
    lazy = dd.from_map(partition, range(PARTS), rows=ROWS, meta=partition(0))
    client.restart()
    before = max(client.run(peak).values())
    found = msem.summarize(lazy, cluster="g", client=client)
    assert found.nobs == PARTS * ROWS
    each = ROWS * 5 * 8
    assert max(client.run(peak).values()) - before < 8 * each < PARTS * each / 2
