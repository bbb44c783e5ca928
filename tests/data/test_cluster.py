"""The same files from a Dask cluster; a scheduler that is not there is said in one line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from patchforest.data.cluster import work_on_cluster
from patchforest.data.layout import find_cases
from patchforest.data.pool import Lost
from patchforest.data.prepare import JobOptions, prepare
from patchforest.errors import InputError
from tests.data.prepared_data import SETTINGS, contents, make_images

pytest.importorskip("distributed", reason="needs the extra cluster (dask[distributed])")


def test_a_cluster_writes_the_same_files(tmp_path: Path) -> None:
    found = find_cases(make_images(tmp_path / "data", 7, bad=[2]))
    summaries = [
        prepare(found, tmp_path / name, SETTINGS, options=JobOptions(workers=1, cluster=cluster))
        for name, cluster in (("here", None), ("there", "local"))
    ]
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    assert summaries[0].done == summaries[1].done
    assert summaries[0].failed == summaries[1].failed


def test_no_scheduler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchforest.data.cluster._PATIENCE", 0.5)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9.*no scheduler answers"):
        list(work_on_cluster(str, [1], address="tcp://127.0.0.1:9", workers=1, timeout=1))


def test_silence_is_not_waited_for() -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        got = list(work_on_cluster(time.sleep, [2, 0], address=address, workers=1, timeout=0.6))
    assert dict(got)[2] == Lost("the cluster gave no result for 0.6 seconds")


def test_a_scheduler_without_workers_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr("patchforest.data.cluster._PATIENCE", 0.5)
    with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        with pytest.raises(InputError, match="this scheduler has no workers; start some: `dask worker"):
            list(work_on_cluster(str, [1], address=address, workers=1, timeout=1))
