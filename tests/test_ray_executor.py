"""The Ray executor: layout and watchdog as functions, the rest on real clusters with real kills."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rayft.config import ScoreConfig
from rayft.errors import StoppedError, UsageError
from rayft.score import cluster, ray_executor
from rayft.score.connect import connected
from rayft.score.job import Job, Work
from rayft.score.layout import SLOT, Layout, Node, plan_layout
from rayft.score.plan import cut_spans
from rayft.score.ray_dataset import build_dataset, make_items
from rayft.score.run import make_job, prepare
from rayft.score.watchdog import Watchdog
from tests.helpers import Cli, write_reviews
from tests.ray_helpers import (
    assert_same_rows,
    descendants,
    model_actors,
    spans_done,
    started,
    wait_for,
    wait_for_end,
    without_agents,
)

# --- layout -------------------------------------------------------------------------------------


def nodes(*cpus: float, gpus: int = 0) -> list[Node]:
    return [Node(str(i), str(i), n, gpus) for i, n in enumerate(cpus)]


@pytest.mark.parametrize(
    ("cpus", "options", "actors", "each", "threads"),
    [
        ((2,), {}, 1, 1.5, 2),
        ((1,), {}, 1, 0.5, 1),
        ((2,), {"replicas": 2}, 2, 0.75, 1),
        ((16,), {}, 1, 15.5, 16),
        ((16,), {"threads": 4}, 4, 3.87, 4),
        ((16,), {"threads": 16}, 1, 15.5, 16),
        ((8, 8), {"replicas": 3}, 3, 3.75, 4),
        ((64, 8), {}, 9, 7.5, 8),
        ((0, 2), {}, 1, 1.5, 2),
    ],
)
def test_layout_on_cpus(cpus: tuple[int, ...], options: dict[str, int], actors: int, each: float, threads: int) -> None:
    layout = plan_layout(nodes(*cpus), "cpu", **options)
    assert (layout.actors, layout.cpus, layout.threads, layout.gpus) == (actors, each, threads, 0.0)


@pytest.mark.parametrize("threads", [None, 1, 3, 8])
@pytest.mark.parametrize("replicas", [None, 1, 2, 5])
@pytest.mark.parametrize("cpus", [(2,), (4,), (7, 3), (16, 16, 2), (96,)])
def test_actors_never_take_every_cpu(cpus: tuple[int, ...], replicas: int | None, threads: int | None) -> None:
    layout = plan_layout(nodes(*cpus), "cpu", replicas, 1, threads)
    free = sum(cpus) - layout.actors * layout.cpus
    assert free >= 2 * SLOT
    assert (layout.readers + layout.committers) * SLOT <= free + 1e-6
    assert min(layout.readers, layout.committers) >= 1
    assert replicas is None or layout.actors == replicas


@pytest.mark.parametrize("cpus", [2, 4, 16, 64])
@pytest.mark.parametrize("threads", [None, 1, 4])
def test_no_further_actor_fits_beside_those_of_a_node(cpus: int, threads: int | None) -> None:
    """An actor that comes from a lost node must not take the room for reading."""
    layout = plan_layout(nodes(cpus), "cpu", threads=threads)
    assert cpus - layout.actors * layout.cpus < layout.cpus


def test_layout_on_gpus() -> None:
    layout = plan_layout(nodes(16, 16, gpus=2), "cuda", replicas_per_gpu=2)
    assert (layout.actors, layout.gpus, layout.cpus) == (8, 0.5, 1.0)
    few = plan_layout(nodes(2, gpus=8), "cuda")
    assert few.actors == 8
    assert 2 - few.actors * few.cpus >= 2 * SLOT


@pytest.mark.parametrize(
    ("where", "device", "options", "words"),
    [
        (nodes(0.5), "cpu", {}, "needs at least"),
        (nodes(2), "cpu", {"replicas": 9}, "at most 6"),
        (nodes(8), "cuda", {}, "none of the 1 Ray nodes has one"),
        (nodes(8, gpus=2), "cuda", {"replicas": 3}, "2 GPUs hold 2"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(where: list[Node], device: str, options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan_layout(where, device, **options)


# --- watchdog -----------------------------------------------------------------------------------


def seen(**values: Any) -> dict[str, Any]:
    quiet = {"batches": 0, "beats": 0, "sums": [0, 0, 0], "loading": 0, "ready": 1, "most_begun": (None, 0)}
    return {**quiet, **values}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> tuple[Watchdog, Clock]:
    clock = Clock()
    return Watchdog(Layout(2, 1.5, 0.0, 2, 1, 1), clock=clock), clock


def test_no_batch_for_two_minutes_ends_the_run(watch: tuple[Watchdog, Clock]) -> None:
    dog, clock = watch
    dog.look(seen(batches=3), 0, 5, 0)
    for clock.now in (60.0, 119.0):
        dog.look(seen(), 0, 5, 0)
    clock.now = 121.0
    with pytest.raises(StoppedError, match=r"No batch was finished for 121 s\. 5 spans wait.*1 of 2 .*it resumes"):
        dog.look(seen(), 0, 5, 0)


def test_batches_beats_and_commits_are_progress(watch: tuple[Watchdog, Clock]) -> None:
    dog, clock = watch
    dog.look(seen(batches=1), 0, 5, 0)
    steps = [(seen(batches=1), 0), (seen(beats=1), 0), (seen(), 1), (seen(batches=2), 1)]
    for clock.now, (look, done) in zip((100.0, 200.0, 300.0, 400.0), steps, strict=True):
        dog.look(look, done, 5 - done, 0)


def test_starting_and_loading_have_a_limit_of_their_own(watch: tuple[Watchdog, Clock]) -> None:
    dog, clock = watch
    clock.now = 590.0
    dog.look(seen(ready=0, loading=2), 0, 5, 0)
    dog.look(seen(ready=2, batches=1), 0, 5, 0)
    clock.now = 1100.0
    dog.look(seen(ready=1, loading=1), 0, 5, 0)
    clock.now = 1200.0
    with pytest.raises(StoppedError):
        dog.look(seen(ready=1, loading=1), 0, 5, 0)


def test_a_span_that_kills_its_actors_ends_the_run(watch: tuple[Watchdog, Clock]) -> None:
    dog, _ = watch
    with pytest.raises(StoppedError, match=r"row 2,100 of a file was begun 8 times"):
        dog.look(seen(batches=9, most_begun=(("key", 2100), 8)), 0, 5, 0)


# --- choice of executor ---------------------------------------------------------------------------


def test_auto_takes_ray_beside_a_cluster_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_JOB_ID", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cluster, "_gpus_here", lambda: 0)
    assert not cluster.wants_ray(ScoreConfig(("x",)))
    assert cluster.wants_ray(ScoreConfig(("x",), address="auto"))
    assert cluster.wants_ray(ScoreConfig(("x",), engine="ray"))
    assert not cluster.wants_ray(ScoreConfig(("x",), engine="local", address="auto"))
    monkeypatch.setattr(cluster, "_gpus_here", lambda: 2)
    assert cluster.wants_ray(ScoreConfig(("x",)))
    assert not cluster.wants_ray(ScoreConfig(("x",), device="cpu"))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster.wants_ray(ScoreConfig(("x",), device="cpu"))


@pytest.mark.parametrize(
    ("address", "code", "words"),
    [("ray://head:10001", 2, "Ray Client"), ("127.0.0.1:9", 3, "Cannot connect"), ("nonsense", 3, "nonsense")],
)
def test_bad_addresses_are_refused_at_once(
    cli: Cli, tiny: Path, tmp_path: Path, address: str, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    source = write_reviews(tmp_path / "in.parquet", 20)
    ran = cli("score", source, "-o", tmp_path / "out", "-m", tiny, "--address", address)
    assert ran.code == code
    assert words in ran.err
    assert "Traceback" not in ran.err


# --- items ----------------------------------------------------------------------------------------


@pytest.fixture
def planned(tiny: Path, tmp_path: Path) -> Iterator[tuple[Job, list[Work]]]:
    """A job with one file of many row groups, one of a single large one, and twenty small ones."""
    write_reviews(tmp_path / "in/a.parquet", 6000, row_group_size=100)
    write_reviews(tmp_path / "in/b.parquet", 3000)
    for i in range(20):
        write_reviews(tmp_path / f"in/small/{i:02d}.parquet", 30, seed=i)
    config = ScoreConfig((str(tmp_path / "in"),), str(tmp_path / "out"), str(tiny), precision="fp32")
    with prepare(config) as ready:
        works = [Work(file, cut_spans(file.source.row_groups, 100, file.rows)) for file in ready.plan.files]
        yield make_job(config, ready.checkpoint, ready.output, ready.state, ready.plan), works


def test_items_hold_every_missing_span_once_and_are_cut_at_row_groups(planned: tuple[Job, list[Work]]) -> None:
    _, works = planned
    gaps = [Work(w.plan, tuple(s for i, s in enumerate(w.missing) if (i + 1) % 7)) for w in works]
    items = make_items(gaps, span_rows=100, readers=1)
    found = [(work.plan.key, span) for item in items for work in item for span in work.missing]
    assert found == [(work.plan.key, span) for work in gaps for span in work.missing]
    assert len(make_items(gaps, span_rows=100, readers=8)) > len(items)  # enough to keep eight readers busy
    large = next(work.plan.key for work in works if work.plan.name == "b.parquet")
    assert sum(1 for item in items for work in item if work.plan.key == large) == 1  # one row group, one walk
    assert len(items) < 12
    assert max(len(item) for item in items) > 5  # small files share a task


def test_ten_thousand_files_are_few_items(planned: tuple[Job, list[Work]]) -> None:
    _, works = planned
    small = [work for work in works if work.plan.name.startswith("small")]
    assert len(make_items(small * 500, span_rows=1050, readers=4)) < 200


# --- on a cluster ---------------------------------------------------------------------------------


def test_three_stages_stay_three_operators(planned: tuple[Job, list[Work]], ray_address: str) -> None:
    import ray
    from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator
    from ray.data._internal.execution.operators.task_pool_map_operator import TaskPoolMapOperator
    from ray.data._internal.logical.optimizers import get_execution_plan

    job, works = planned
    with connected(ray_address):
        layout = plan_layout(cluster.alive_nodes(), "cpu")
        tracker = ray_executor.start_tracker()
        dataset = build_dataset(job, make_items(works, 100, layout.readers), layout, 100, tracker)
        plan = get_execution_plan(dataset._logical_plan)
        plan = plan[0] if isinstance(plan, tuple) else plan
        stages = []
        operator = plan.dag
        while operator.input_dependencies:
            stages.insert(0, operator)
            (operator,) = operator.input_dependencies
        assert [stage.name for stage in stages] == [
            "MapBatches(read_stage)",
            "MapBatches(ModelStage)",
            "MapBatches(commit_stage)",
        ]
        read, model, commit = stages
        assert isinstance(model, ActorPoolMapOperator)
        assert isinstance(read, TaskPoolMapOperator)
        assert isinstance(commit, TaskPoolMapOperator)
        assert read._ray_remote_args["num_cpus"] == commit._ray_remote_args["num_cpus"] == SLOT
        assert model._ray_remote_args["num_cpus"] == layout.cpus == 1.5
        assert model._ray_remote_args["max_restarts"] == -1
        assert model._ray_remote_args["max_task_retries"] == -1
        assert (model._actor_pool.min_size(), model._actor_pool.max_size()) == (1, 1)
        assert (read.get_max_concurrency_limit(), commit.get_max_concurrency_limit()) == (1, 1)
        ray.kill(tracker)


@pytest.fixture(scope="session")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of several shapes, about 15 spans on a CPU."""
    folder = tmp_path_factory.mktemp("dump")
    write_reviews(folder / "a.parquet", 4000, seed=1)
    write_reviews(folder / "b.parquet", 3000, seed=2, row_group_size=700)
    write_reviews(folder / "deep/c.parquet", 4000, seed=3, row_group_size=1000)
    write_reviews(folder / "deep/empty.parquet", 0)
    for i in range(5):
        write_reviews(folder / f"small/{i}.parquet", 40, seed=10 + i)
    return folder


@pytest.fixture(scope="session")
def undisturbed(dump: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows that every run must end with."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    with started(dump, output, tiny, "--engine", "local", "-q") as process:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    return output


def test_ray_gives_the_rows_of_local(
    cli: Cli, dump: Path, undisturbed: Path, tiny: Path, tmp_path: Path, ray_address: str
) -> None:
    options = ("score", dump, "-o", tmp_path / "out", "-m", tiny, "--precision", "fp32", "--address", ray_address)
    ran = cli(*options, "--json")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    assert_same_rows(undisturbed, tmp_path / "out")
    report = ran.json
    assert report["engine"]["executor"] == "ray"
    assert report["rows"]["this_run"] == report["rows"]["total"] == 11_200
    assert 0 < report["speed"]["executor_start_seconds"] <= report["speed"]["start_seconds"]
    (worker,) = report["workers"]
    assert re.fullmatch(r"[0-9a-f]{8}/0", worker)
    assert report["workers"][worker]["rows"] == 11_200
    assert sum(rows for _, rows in report["timeline"]) > 10_000
    assert cli(*options, "--json").json["rows"]["this_run"] == 0


def test_a_corrupt_file_is_named_and_the_others_finish(
    cli: Cli, dump: Path, undisturbed: Path, tiny: Path, tmp_path: Path, ray_address: str
) -> None:
    source = tmp_path / "in"
    shutil.copytree(dump / "small", source)
    broken = write_reviews(source / "broken.parquet", 3000, seed=5, row_group_size=500)
    content = bytearray(broken.read_bytes())
    middle = pq.read_metadata(broken).row_group(3).column(2).data_page_offset
    content[middle : middle + 2000] = os.urandom(2000)
    broken.write_bytes(content)
    ran = cli("score", source, "-o", tmp_path / "out", "-m", tiny, "--precision", "fp32", "--address", ray_address)
    assert ran.code == 1
    assert "Failed: broken.parquet" in ran.err
    assert not (tmp_path / "out/broken.parquet").exists()
    (tmp_path / "expected").mkdir()
    shutil.copytree(undisturbed / "small", tmp_path / "expected", dirs_exist_ok=True)
    assert_same_rows(tmp_path / "expected", tmp_path / "out")


def test_a_killed_model_actor_is_replaced(
    dump: Path, undisturbed: Path, tiny: Path, tmp_path: Path, ray_address: str
) -> None:
    output = tmp_path / "out"
    with started(dump, output, tiny, "--address", ray_address, "--batch-tokens", 256, "-q") as process:
        wait_for(lambda: spans_done(output), what="a first span")
        (actor,) = model_actors()
        os.kill(actor, signal.SIGKILL)
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert err == ""
    assert_same_rows(undisturbed, output)


def test_a_run_whose_driver_was_killed_is_finished_by_local(
    cli: Cli, dump: Path, undisturbed: Path, tiny: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with started(dump, output, tiny, "--engine", "ray", "--batch-tokens", 256) as process:
        done = wait_for(lambda: (spans_done(output) >= 2) and spans_done(output), what="two spans")
        below = descendants(process.pid)
        (gcs,) = (name for name in below.values() if "gcs_server " in name)
        assert "--node-ip-address=127.0.0.1" in gcs  # nobody else can reach a cluster that is started here
        os.kill(process.pid, signal.SIGKILL)
        wait_for_end(without_agents(below))
    ran = cli("score", dump, "-o", output, "-m", tiny, "--precision", "fp32", "--engine", "local", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["engine"]["executor"] == "local"
    assert 0 < ran.json["rows"]["this_run"] < 11_200
    assert done >= 2
    assert_same_rows(undisturbed, output)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_soon_and_leaves_no_processes(
    dump: Path, tiny: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    output = tmp_path / "out"
    with started(dump, output, tiny, "--engine", "ray", "--batch-tokens", 256, "-q") as process:
        wait_for(lambda: spans_done(output), what="a first span")
        below = descendants(process.pid)
        began = time.monotonic()
        os.killpg(process.pid, sent)  # as a terminal does with Ctrl-C: to every process of the group
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert time.monotonic() - began < 30
        assert err.strip() == "Interrupted. What was finished is kept; the same command goes on from there."
        wait_for_end(without_agents(below))
    assert spans_done(output)


def test_a_lost_node_costs_no_rows(dump: Path, undisturbed: Path, tiny: Path, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    output = tmp_path / "out"
    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        second = two.add_node(num_cpus=2)
        with started(dump, output, tiny, "--address", two.address, "--batch-tokens", 256, "--json") as process:
            wait_for(lambda: spans_done(output) and len(model_actors()) == 2, what="a first span and both actors")
            two.remove_node(second, allow_graceful=False)
            _, err = process.communicate(timeout=250)
            assert process.returncode == 0, err
    finally:
        two.shutdown()
    assert_same_rows(undisturbed, output)


def test_a_run_without_room_for_its_actor_says_so(
    cli: Cli, tiny: Path, tmp_path: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    source = write_reviews(tmp_path / "in.parquet", 50)
    monkeypatch.setattr(ray_executor, "Watchdog", partial(Watchdog, start_seconds=6.0))
    with connected(ray_address):
        taken = ray.remote(num_cpus=1)(type("Taken", (), {"ready": lambda self: True})).remote()
        assert ray.get(taken.ready.remote())
        ran = cli("score", source, "-o", tmp_path / "out", "-m", tiny, "--address", ray_address)
        ray.kill(taken)
    assert ran.code == 3
    assert "No model actor was ready" in ran.err
    assert "of 2 CPUs" in ran.err
    assert "it resumes" in ran.err


# --- soak -----------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_fifty_random_kills_cost_no_rows(dump: Path, undisturbed: Path, tiny: Path, tmp_path: Path) -> None:
    """Kill a model actor, a raylet with its node, or the driver at random moments; the rows stay the same."""
    from ray.cluster_utils import Cluster

    rounds = int(os.environ.get("RAYFT_SOAK_ROUNDS", "50"))
    rng = random.Random(int(os.environ.get("RAYFT_SOAK_SEED", "0")))
    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    second = two.add_node(num_cpus=2)
    try:
        for number in range(rounds):
            output = tmp_path / f"out{number}"
            victim = rng.choice(("actor", "raylet", "driver"))
            options = ("--address", two.address, "--batch-tokens", 256, "-q")
            with started(dump, output, tiny, *options) as process:
                wait_for(lambda process=process: model_actors() or process.poll() is not None, what="an actor")
                time.sleep(rng.uniform(0.0, 12.0))
                print(f"round {number}: kill {victim} at {spans_done(output)} spans", flush=True)
                if victim == "driver":
                    os.kill(process.pid, signal.SIGKILL)
                elif victim == "raylet":
                    two.remove_node(second, allow_graceful=False)
                    second = two.add_node(num_cpus=2)
                else:
                    for actor in model_actors()[:1]:
                        os.kill(actor, signal.SIGKILL)
                _, err = process.communicate(timeout=400)
                assert process.returncode == (-signal.SIGKILL if victim == "driver" else 0), (number, victim, err)
            if victim == "driver":
                with started(dump, output, tiny, *options) as process:
                    _, err = process.communicate(timeout=400)
                    assert process.returncode == 0, (number, err)
            assert_same_rows(undisturbed, output)
            shutil.rmtree(output)
    finally:
        two.shutdown()
