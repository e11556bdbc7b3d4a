"""What a model directory must hold, and what is read from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rayft.errors import UsageError
from rayft.model.checkpoint import BUNDLED, find_checkpoint, load_checkpoint
from rayft.text.clean import JOIN_FORMAT

CONFIG: dict[str, Any] = {
    "architectures": ["DistilBertForSequenceClassification"],
    "id2label": {"0": "negative", "1": "positive"},
    "max_position_embeddings": 512,
}


def write_model(folder: Path, **changes: Any) -> Path:
    """Write a directory that looks like a checkpoint; None removes a key of its config."""
    folder.mkdir(exist_ok=True)
    config = {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"weights")
    shutil.copy(BUNDLED / "tokenizer.json", folder)
    return folder


def refusal(model: Path | str) -> str:
    with pytest.raises(UsageError) as refused:
        load_checkpoint(str(model))
    return str(refused.value)


def test_the_layout_of_training_is_kept(tmp_path: Path) -> None:
    own = {"join_format": "{title} | {text}", "max_length": 64, "truncation": "head+tail"}
    checkpoint = load_checkpoint(str(write_model(tmp_path / "m", rayft=own)))
    assert (checkpoint.join_format, checkpoint.max_length, checkpoint.truncation) == tuple(own.values())
    words = " ".join(f"word{i}" for i in range(200))
    assert checkpoint.encoder()([words]).lengths.tolist() == [64]
    ends = checkpoint.encoder(8).tokenizer.decode(checkpoint.encoder(8)([words]).ids.tolist())
    assert ends.startswith("word")
    assert "199" in ends.replace(" ", "")


def test_models_of_other_makers_have_defaults(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(str(write_model(tmp_path / "m")))
    assert (checkpoint.directory, checkpoint.name) == (tmp_path / "m", str(tmp_path / "m"))
    assert checkpoint.labels == ("negative", "positive")
    assert checkpoint.config == CONFIG
    assert (checkpoint.join_format, checkpoint.max_length, checkpoint.truncation) == (JOIN_FORMAT, 256, "head")
    short = load_checkpoint(str(write_model(tmp_path / "m", max_position_embeddings=128)))
    assert short.max_length == 128
    assert load_checkpoint(str(write_model(tmp_path / "m", architectures=None))).labels == ("negative", "positive")


def test_no_config(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "has no config.json" in refusal(tmp_path)
    assert str(tmp_path) in refusal(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1]", '"x"', "null"])
def test_a_config_that_is_none(tmp_path: Path, content: str) -> None:
    (write_model(tmp_path / "m") / "config.json").write_text(content)
    assert "config.json" in refusal(tmp_path / "m")


def test_pickled_weights_only(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "no *.safetensors" in refusal(model)
    assert "pytorch_model.bin is a pickle" in refusal(model)
    (model / "pytorch_model.bin").unlink()
    assert "is a pickle" not in refusal(model)


def test_a_model_with_code(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", auto_map={"AutoModel": "modeling.Model"})
    assert "brings its own code (auto_map" in refusal(model)


def test_a_model_that_is_no_classifier(tmp_path: Path) -> None:
    assert "is a BertForMaskedLM, not a sequence classifier" in refusal(
        write_model(tmp_path / "m", architectures=["BertForMaskedLM"])
    )


def test_no_tokenizer(tmp_path: Path) -> None:
    (write_model(tmp_path / "m") / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in refusal(tmp_path / "m")


def test_a_file_in_place_of_a_directory(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    assert "is a file; give the directory" in refusal(model / "config.json")


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "../no-such-directory", "a/b/c", "a b", "~/nowhere-at-all"])
def test_a_directory_that_is_not_there(name: str) -> None:
    assert "There is no model directory" in refusal(name)


def test_a_hub_model_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refusal("nobody/no-such-model")
    assert "Cannot fetch model 'nobody/no-such-model' from the Hub, and no directory has that name" in message


def test_the_shipped_model_is_the_default() -> None:
    assert find_checkpoint(None) == find_checkpoint("bundled") == BUNDLED


def test_a_directory_of_a_name_is_taken_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "bert")
    monkeypatch.chdir(tmp_path)
    assert load_checkpoint("bert").name == "bert"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_checkpoint("~/bert") == tmp_path / "bert"


def test_labels_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = {str(i): f"class {i}" for i in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)}
    assert load_checkpoint(str(write_model(tmp_path / "m", id2label=names))).labels == tuple(
        f"class {i}" for i in range(11)
    )
    unnamed = write_model(tmp_path / "m", id2label=None, num_labels=3)
    assert load_checkpoint(str(unnamed)).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert load_checkpoint(str(write_model(tmp_path / "m", id2label=None))).labels == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize("labels", [{"a": "negative"}, ["negative", "positive"], "x"])
def test_labels_without_numbers_are_refused(tmp_path: Path, labels: Any) -> None:
    assert "id2label" in refusal(write_model(tmp_path / "m", id2label=labels))


def test_the_digest_is_of_weights_tokenizer_and_config(tmp_path: Path) -> None:
    def digest() -> str:
        return load_checkpoint(str(tmp_path / "m")).digest

    model = write_model(tmp_path / "m")
    seen = [digest()]
    shutil.copytree(model, tmp_path / "copy")
    assert load_checkpoint(str(tmp_path / "copy")).digest == seen[0]
    (model / "README.md").write_text("not a part of it")
    assert digest() == seen[0]
    (model / "model.safetensors").write_bytes(b"weighte")
    seen.append(digest())
    for shard in ("model-2.safetensors", "model-3.safetensors"):
        (model / shard).write_bytes(b"more weights")
        seen.append(digest())
        (model / shard).write_bytes(b"more weighte")
        seen.append(digest())
    (model / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes() + b"\n")
    seen.append(digest())
    write_model(model, id2label={"0": "positive", "1": "negative"})
    seen.append(digest())
    assert len(set(seen)) == 8


@pytest.mark.parametrize(
    ("labels", "negative"),
    [
        (("negative", "positive"), 0),
        (("POSITIVE", "NEGATIVE"), 1),
        (("pos", "neutral", "Neg"), 2),
        (("LABEL_0", "LABEL_1"), None),
        (("1 star", "5 stars"), None),
        (("nonnegative", "other"), None),
    ],
)
def test_the_negative_label_is_known_by_name(tmp_path: Path, labels: tuple[str, ...], negative: int | None) -> None:
    checkpoint = load_checkpoint(str(write_model(tmp_path / "m", id2label=dict(enumerate(labels)))))
    assert checkpoint.negative_index(None) == negative
    for number, label in enumerate(labels):
        assert checkpoint.negative_index(label) == number


def test_a_negative_label_that_is_none_of_the_model(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(str(write_model(tmp_path / "m")))
    with pytest.raises(UsageError, match=r"no label 'bad'; it has: negative, positive.*--negative-label"):
        checkpoint.negative_index("bad")
