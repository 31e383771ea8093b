"""DenoisingAutoEncoderLoss: its value against loops over tokens, tied weights, other decoders, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import WORDS

from minisbert import SentenceTransformer, Trainer, TrainingConfig
from minisbert.errors import ConfigError, InputError
from minisbert.losses import (
    AdaptiveLayerLoss,
    ContrastiveTensionLoss,
    ContrastiveTensionLossInBatchNegatives,
    CoSENTLoss,
    DenoisingAutoEncoderLoss,
    MatryoshkaLoss,
    loss_by_name,
)
from minisbert.packing import pack

pytest.importorskip("transformers")
TEXTS = [" ".join(WORDS[:count]) for count in (3, 9, 1, 14)]


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> SentenceTransformer:
    return SentenceTransformer(tiny("bert"), device="cpu")


def test_value(model: SentenceTransformer) -> None:
    """The mean over all tokens but the first of each text of minus the logarithm of their probability."""
    torch.manual_seed(0)
    loss = DenoisingAutoEncoderLoss(model).eval()
    tokens = model.transformer.tokenizer(TEXTS)
    damaged = torch.randn(len(TEXTS), 32)
    with torch.no_grad():
        value = loss([damaged], None, [pack(tokens)])
        terms = []
        for row in range(len(TEXTS)):
            ids = torch.from_numpy(tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]]).long()
            logits = loss.decoder(input_ids=ids[None, :-1], encoder_hidden_states=damaged[row][None, None])[0][0]
            terms += [-logits[place].log_softmax(-1)[ids[place + 1]] for place in range(len(ids) - 1)]
    torch.testing.assert_close(value, torch.stack(terms).mean(), rtol=1e-5, atol=1e-5)


def test_weights_are_shared(model: SentenceTransformer) -> None:
    loss = DenoisingAutoEncoderLoss(model)
    own, others = set(model.parameters()), set(loss.parameters())
    assert own <= others  # all of the encoder
    assert loss.decoder.get_output_embeddings().weight is model.transformer.auto_model.embeddings.word.weight
    assert others - own  # the attention to the encoder, and the rest of the head
    before = model.encode("a text")
    config = TrainingConfig(epochs=2, batch_size=2, learning_rate=1e-3)
    Trainer(model, [(text, text) for text in TEXTS], loss=loss, config=config, show_progress_bar=False).train()
    assert not np.array_equal(before, model.encode("a text"))
    assert set(model.parameters()) <= set(loss.parameters())  # still


def test_a_changed_vocabulary(model: SentenceTransformer) -> None:
    model.transformer.auto_model.resize_token_embeddings(model.transformer.auto_model.vocabulary + 3)
    loss = DenoisingAutoEncoderLoss(model)
    assert loss.decoder.get_output_embeddings().out_features == model.transformer.auto_model.vocabulary


@pytest.mark.parametrize("by", [3, -3])
@pytest.mark.parametrize("when", ["before the trainer", "after the trainer"])
def test_a_vocabulary_that_changes_later_stays_tied(by: int, when: str, model: SentenceTransformer) -> None:
    loss, encoder = DenoisingAutoEncoderLoss(model), model.transformer.auto_model
    rows = [(text, text) for text in TEXTS]
    if when == "before the trainer":
        encoder.resize_token_embeddings(encoder.vocabulary + by)
    config = TrainingConfig(epochs=1, batch_size=2, learning_rate=1e-3)
    trainer = Trainer(model, rows, loss=loss, config=config, show_progress_bar=False)
    if when == "after the trainer":
        encoder.resize_token_embeddings(encoder.vocabulary + by)
    trainer.train()
    assert set(model.parameters()) <= set(loss.parameters())
    assert loss.decoder.get_input_embeddings().weight is encoder.get_input_embeddings().weight
    assert loss.decoder.get_output_embeddings().weight is encoder.get_input_embeddings().weight
    assert loss.decoder.get_output_embeddings().out_features == encoder.vocabulary


@pytest.mark.parametrize("kind", [ContrastiveTensionLoss, ContrastiveTensionLossInBatchNegatives])
def test_a_copy_of_another_vocabulary_is_refused(kind: Any, model: SentenceTransformer) -> None:
    loss, encoder = kind(model), model.transformer.auto_model
    encoder.resize_token_embeddings(encoder.vocabulary + 1)
    with pytest.raises(ConfigError, match="make the loss after resize_token_embeddings"):
        Trainer(model, [(text, text)[: loss.max_columns] for text in TEXTS], loss=loss, show_progress_bar=False)


def test_another_decoder(model: SentenceTransformer, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    """A decoder with another tokenizer gets the texts again, in its own tokens."""
    loss = DenoisingAutoEncoderLoss(model, str(tiny("roberta")), tie_encoder_decoder=False)
    assert loss.need_retokenization
    assert not set(model.parameters()) & set(loss.parameters())
    ids = loss._targets(pack(model.transformer.tokenizer(TEXTS)))
    read = loss._tokenizers[1].batch_decode(ids, skip_special_tokens=True)
    assert [text.split() for text in read] == [text.split() for text in TEXTS]
    config = TrainingConfig(epochs=2, batch_size=2, learning_rate=1e-3)
    history = Trainer(
        model, [(text, text) for text in TEXTS], loss=loss, config=config, show_progress_bar=False
    ).train()
    assert np.isfinite(history.train_loss)
    assert loss.get_config_dict()["decoder_name_or_path"] == str(tiny("roberta"))


def test_resume_is_exact(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    def run(output: Path, *, resume: bool) -> list[torch.Tensor]:
        model = SentenceTransformer(tiny("bert"), device="cpu")
        torch.manual_seed(0)
        loss = DenoisingAutoEncoderLoss(model)
        config = TrainingConfig(epochs=4, batch_size=2, learning_rate=1e-3, save_every=4)
        rows = [(text, text) for text in TEXTS]
        Trainer(model, rows, loss=loss, config=config, output_dir=output, show_progress_bar=False).train(resume=resume)
        return [parameter.detach() for parameter in loss.parameters()]

    whole = run(tmp_path / "whole", resume=False)
    (tmp_path / "part").mkdir()
    (tmp_path / "whole" / "checkpoint-4").rename(tmp_path / "part" / "checkpoint-4")
    assert all(torch.equal(a, b) for a, b in zip(whole, run(tmp_path / "part", resume=True), strict=True))


def test_by_name(model: SentenceTransformer) -> None:
    loss = loss_by_name("DenoisingAutoEncoderLoss", {"decoder_name_or_path": "bert-base-uncased"}, model=model)
    assert loss.get_config_dict() == {"decoder_name_or_path": "bert-base-uncased", "need_retokenization": False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tie_encoder_decoder": False}, "no decoder"),
        ({"decoder_name_or_path": "mpnet", "tie_encoder_decoder": False}, "cannot load a decoder"),
    ],
)
def test_what_is_refused(
    options: dict[str, Any], message: str, model: SentenceTransformer, tiny: Callable[[str], Path]
) -> None:
    if "decoder_name_or_path" in options:
        options = {**options, "decoder_name_or_path": str(tiny(options["decoder_name_or_path"]))}
    with pytest.raises(ConfigError) as caught:
        DenoisingAutoEncoderLoss(model, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_else_is_refused(model: SentenceTransformer) -> None:
    with pytest.raises(ConfigError, match="expects one with an encoder"):
        DenoisingAutoEncoderLoss(None)
    loss = DenoisingAutoEncoderLoss(model)
    with pytest.raises(ConfigError, match="expects one over embeddings"):
        MatryoshkaLoss(model, loss, [32])
    with pytest.raises(InputError, match="equal rows"):
        loss([torch.zeros(3, 32)], None, [pack(model.transformer.tokenizer(TEXTS))])
    with pytest.raises(InputError, match="expects 2"):
        Trainer(model, [("a",), ("b",)], loss=loss, show_progress_bar=False)
    with pytest.raises(ConfigError, match="expected a loss"):
        MatryoshkaLoss(model, CoSENTLoss, [32])  # type: ignore[arg-type]


def test_a_loss_made_for_another_model(model: SentenceTransformer, tiny: Callable[[str], Path]) -> None:
    other = SentenceTransformer(tiny("roberta"), device="cpu")
    for loss in (
        DenoisingAutoEncoderLoss(other),
        ContrastiveTensionLoss(other),
        AdaptiveLayerLoss(model, ContrastiveTensionLossInBatchNegatives(other)),
        copy.deepcopy(DenoisingAutoEncoderLoss(model)),
    ):
        columns = 1 if isinstance(loss, AdaptiveLayerLoss) else 2
        with pytest.raises(ConfigError, match="made for another model"):
            Trainer(model, [(text,) * columns for text in TEXTS], loss=loss, show_progress_bar=False)
