"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import Cli, tiny_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny negative/positive checkpoint."""
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of one Ray node of two CPUs that every test of the session can connect to."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_worker_niceness"] = "0"  # tests share the machine with others and must get on  # noqa: SIM112 (Ray reads it so)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    yield cluster.address
    cluster.shutdown()
