"""The OpenVINO engine: the same scores as torch without torch, chosen by itself on CPUs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import rayft
from rayft.errors import UsageError
from rayft.model import engine as engines
from rayft.model.checkpoint import load_checkpoint
from rayft.model.engine import Engine, EngineSpec, build_engine, logits_in_order, resolve_engine
from rayft.score import planning
from rayft.score.span import infer
from rayft.text.encode import Encoded
from tests.helpers import EXAMPLE, Cli, tiny_checkpoint, write_reviews

pytest.importorskip("openvino")

FP32 = EngineSpec("openvino", "fp32", "cpu")
TORCH = EngineSpec("torch", "fp32", "cpu")
DISTILBERT = {"model_type": "distilbert"}


def batch(rng: np.random.Generator, texts: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random ids, padded on the right to various lengths, the first one not at all."""
    lengths = rng.integers(2, length + 1, texts)
    lengths[0] = length
    mask = (np.arange(length)[None, :] < lengths[:, None]).astype(np.int64)
    return rng.integers(1_000, 30_000, (texts, length)) * mask, mask


@pytest.fixture(scope="module")
def both(tiny: Path) -> tuple[Engine, Engine]:
    checkpoint = load_checkpoint(str(tiny))
    return build_engine(checkpoint, FP32, 2), build_engine(checkpoint, TORCH, 2)


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "openvino_installed", lambda: False)
    monkeypatch.setattr(planning, "openvino_installed", lambda: False)


@pytest.mark.parametrize(("texts", "length"), [(1, 2), (1, 9), (3, 17), (7, 64), (2, 511), (4, 512)])
def test_logits_are_those_of_torch(both: tuple[Engine, Engine], texts: int, length: int) -> None:
    ids, mask = batch(np.random.default_rng(length), texts, length)
    ours, theirs = (engine.logits(ids, mask) for engine in both)
    assert ours.dtype == np.float32 and ours.shape == (texts, 2)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.abs(theirs).max() > 0.05


@pytest.mark.parametrize(
    ("changes", "stored"),
    [
        ({"activation": "relu"}, "float32"),
        ({"activation": "gelu_new", "n_layers": 1}, "float16"),
        ({"n_layers": 3, "n_heads": 4, "dim": 64, "hidden_dim": 96}, "bfloat16"),
        ({"sinusoidal_pos_embds": True, "max_position_embeddings": 64}, "float32"),
    ],
)
def test_other_shapes_and_storage(tmp_path: Path, tiny: Path, changes: dict, stored: str) -> None:
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    labels = {i: f"stars {i}" for i in range(5)}
    config = DistilBertConfig(
        **{"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "initializer_range": 0.3, **changes},
        id2label=labels,
        label2id={name: i for i, name in labels.items()},
    )
    model = DistilBertForSequenceClassification(config).to(getattr(torch, stored))
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    shutil.copy(tiny / "tokenizer.json", tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    checkpoint = load_checkpoint(str(tmp_path))
    ids, mask = batch(np.random.default_rng(1), 5, 33)
    ours, theirs = (build_engine(checkpoint, spec, 1).logits(ids, mask) for spec in (FP32, TORCH))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_results_come_in_order_and_repeat_bit_by_bit(both: tuple[Engine, Engine]) -> None:
    rng = np.random.default_rng(0)
    batches = [batch(rng, int(rng.integers(1, 20)), int(rng.integers(2, 80))) for _ in range(40)]
    alone = [both[0].logits(*one) for one in batches]
    for _ in range(3):
        for one, many in zip(alone, logits_in_order(both[0], iter(batches)), strict=True):
            assert one.tobytes() == many.tobytes()


def test_many_threads_may_call_and_stop_early(both: tuple[Engine, Engine]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    ids, mask = batch(np.random.default_rng(0), 4, 30)
    expected = both[0].logits(ids, mask).tobytes()

    def stop_early(number: int) -> bytes:
        results = logits_in_order(both[0], [(ids, mask)] * (2 + number % 5))
        return next(iter(results)).tobytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(stop_early, range(64))) == {expected}

    def broken() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield ids, mask
        raise OSError("the source is gone")

    with pytest.raises(OSError, match="gone"):
        list(logits_in_order(both[0], broken()))
    assert both[0].logits(ids, mask).tobytes() == expected


def test_labels_do_not_depend_on_the_batches(both: tuple[Engine, Engine]) -> None:
    rng = np.random.default_rng(5)
    lengths = rng.integers(3, 60, 200)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    texts = Encoded(rng.integers(1_000, 30_000, offsets[-1]).astype(np.int32), offsets, np.zeros(200, bool))
    small, large = (infer(both[0], texts, 2, tokens) for tokens in (64, 4096))
    assert (small.argmax(1) == large.argmax(1)).all()
    np.testing.assert_allclose(small, large, atol=1e-5)


def test_the_shipped_model_in_fp32_and_bf16() -> None:
    table = pq.read_table(EXAMPLE)
    exact, ours, rounded = (
        rayft.Scorer(engine_backend=backend, precision=precision).score(table)
        for backend, precision in (("torch", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
    )
    negative = [np.nan_to_num(scored["defect_score"].to_numpy()) for scored in (exact, ours, rounded)]
    assert np.abs(negative[1] - negative[0]).max() < 1e-5
    assert ours["label"].to_pylist() == exact["label"].to_pylist()
    agree = np.mean([a == b for a, b in zip(rounded["label"].to_pylist(), exact["label"].to_pylist(), strict=True)])
    assert agree >= 0.995
    assert np.abs(negative[2] - negative[0]).mean() <= 0.01


def test_auto_takes_it_on_cpus_for_what_it_supports() -> None:
    assert resolve_engine("fp32", "cpu", "auto", DISTILBERT) == FP32
    assert resolve_engine("fp32", "auto", "openvino", DISTILBERT) == FP32
    assert resolve_engine("fp32", "cpu", "torch", DISTILBERT) == TORCH
    assert resolve_engine("fp32", "cpu", "auto", {"model_type": "bert"}) == TORCH
    assert resolve_engine("fp32", "cpu", "auto", {**DISTILBERT, "activation": "silu"}) == TORCH
    with pytest.raises(UsageError, match="this model is bert"):
        resolve_engine("fp32", "cpu", "openvino", {"model_type": "bert"})


def test_a_gpu_comes_first_unless_openvino_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_gpu_present", lambda: True)
    assert resolve_engine("auto", "auto", "auto", DISTILBERT) == EngineSpec("torch", "bf16", "cuda")
    assert resolve_engine("fp32", "auto", "openvino", DISTILBERT) == FP32
    with pytest.raises(UsageError, match="computes on CPUs"):
        resolve_engine("fp32", "cuda", "openvino", DISTILBERT)


@pytest.mark.usefixtures("without_openvino")
def test_without_openvino(tmp_path: Path, tiny: Path, cli: Cli) -> None:
    assert resolve_engine("fp32", "cpu", "auto", DISTILBERT) == TORCH
    source = write_reviews(tmp_path / "in.parquet", 20)
    refused = cli("score", source, "--model", tiny, "--engine-backend", "openvino")
    assert refused.code == 2
    assert "pip install 'rayft[fast]'" in refused.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.parquet"]
    assert cli("predict", "fine", "--model", tiny, "--engine-backend", "openvino").code == 2
    report = cli("score", source, "--model", tiny, "--device", "cpu", "--json").json
    assert report["engine"]["backend"] == "torch"
    assert any("rayft[fast]" in note for note in report["notes"])
    with pytest.raises(UsageError, match="not installed on this machine"):
        build_engine(load_checkpoint(str(tiny)), FP32)


def test_another_architecture_falls_back_with_a_note(tmp_path: Path, tiny: Path, cli: Cli) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    shutil.copy(tiny / "tokenizer.json", tmp_path / "bert")
    source = write_reviews(tmp_path / "in.parquet", 20)
    report = cli("score", source, "--model", tmp_path / "bert", "--device", "cpu", "--json").json
    assert report["engine"]["backend"] == "torch"
    assert any("this model is bert" in note for note in report["notes"])


def test_score_names_the_engine_and_refuses_to_mix(tmp_path: Path, tiny: Path, cli: Cli) -> None:
    source, out = write_reviews(tmp_path / "in.parquet", 60), tmp_path / "out.parquet"
    begin = ("score", source, "--model", tiny, "--output", out, "--device", "cpu", "--precision", "fp32")
    report = cli(*begin, "--json").json
    assert report["engine"]["backend"] == "openvino"
    assert "openvino" in report["versions"]
    assert json.loads((tmp_path / "out.parquet.rayft" / "plan.json").read_text())["engine"]["backend"] == "openvino"
    assert "openvino fp32 on cpu" in " ".join(cli(*begin).out.split())
    mixed = cli(*begin, "--engine-backend", "torch")
    assert mixed.code == 2
    assert "engine: openvino before, torch now" in mixed.err
    assert cli(*begin, "--engine-backend", "openvino").code == 0


def test_a_run_that_was_begun_with_openvino_does_not_go_on_without(
    tmp_path: Path, tiny: Path, cli: Cli, request: pytest.FixtureRequest
) -> None:
    source = write_reviews(tmp_path / "in.parquet", 20)
    assert cli("score", source, "--model", tiny, "--device", "cpu").code == 0
    request.getfixturevalue("without_openvino")
    stopped = cli("score", source, "--model", tiny, "--device", "cpu")
    assert stopped.code == 3
    assert "begun with OpenVINO" in stopped.err


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    checkpoint = tiny_checkpoint(tmp_path / "model")
    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    del weights["classifier.bias"]
    save_file(weights, file)
    with pytest.raises(UsageError, match=r"lack the tensor classifier\.bias"):
        build_engine(load_checkpoint(str(checkpoint)), FP32, 1)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UsageError, match="Cannot read"):
        build_engine(load_checkpoint(str(checkpoint)), FP32, 1)


HEAVY = {"score": {"torch", "transformers", "ray", "polars"}}
HEAVY["predict"] = HEAVY["score"] | {"pandas", "openvino.tools.ovc"}


@pytest.mark.parametrize("command", ["score", "predict"])
def test_neither_torch_nor_transformers_is_imported(tmp_path: Path, tiny: Path, command: str) -> None:
    source = write_reviews(tmp_path / "in.parquet", 20)
    args = [command, str(source if command == "score" else "The lid cracked."), "--model", str(tiny)]
    code = f"""
import sys
from rayft.cli import main
try:
    main({args!r})
except SystemExit as stop:
    assert stop.code == 0
heavy = sorted({HEAVY[command]} & set(sys.modules))
assert not heavy, heavy
import openvino
assert callable(openvino.convert_model)
import pyarrow
assert len(pyarrow.table({{"a": [1]}}).to_pandas()) == 1
"""
    env = {"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parents[1])}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert ran.returncode == 0, ran.stderr
