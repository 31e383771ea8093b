"""`model[0].auto_model`: the tree, the configuration and the call of transformers over our encoder."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from minisbert.compat.model import SentenceTransformer
from minisbert.compat.models.auto_model import AutoModel, ConfigView
from minisbert.errors import ConfigError, InputError

TEXTS = ["a cat sat on the mat", "dog", "the sea is blue"]


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> SentenceTransformer:
    return SentenceTransformer(tiny("bert"), device="cpu")


@pytest.mark.parametrize("architecture", ["bert", "roberta", "xlm-roberta", "distilbert", "mpnet"])
def test_parameters_are_those_of_the_model_by_checkpoint_names(architecture: str, tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny(architecture), device="cpu")
    view = model[0].auto_model
    assert isinstance(view, AutoModel)
    named = dict(view.named_parameters())
    known = model.transformer.checkpoint_parameters()
    assert named.keys() == known.keys()
    assert all(named[name] is known[name] for name in named)
    assert view is model[0].auto_model is model[0].model is model.transformers_model
    layers = view.get_submodule("transformer.layer" if architecture == "distilbert" else "encoder.layer")
    assert isinstance(layers, nn.ModuleList)
    assert len(layers) == 2


def test_freezing_through_the_view(model: SentenceTransformer) -> None:
    view = model[0].auto_model
    for parameter in view.encoder.layer[:1].parameters():
        parameter.requires_grad = False
    view.embeddings.word_embeddings.weight.requires_grad_(False)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert len(frozen) == 17
    assert {name.split(".")[2] for name in frozen} == {"encoder", "embeddings"}


def test_the_call_of_transformers(model: SentenceTransformer) -> None:
    features = model.tokenize(TEXTS)
    ids, mask = features["input_ids"], features["attention_mask"]
    output = model[0].auto_model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    torch.testing.assert_close(output.last_hidden_state, model[0](features)["token_embeddings"])
    assert output[0] is output["last_hidden_state"] is output.last_hidden_state
    assert torch.equal(output[1], output.pooler_output)
    torch.testing.assert_close(output.pooler_output, torch.tanh(output[0][:, 0]))  # its weights are the identity
    assert len(output.hidden_states) == 3
    assert len(list(output)) == 3
    first = model[0].auto_model(ids, mask, return_dict=False)[0]
    torch.testing.assert_close(first, output[0])


def test_without_a_pooler(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("distilbert"), device="cpu")
    assert model[0].auto_model(model.tokenize(TEXTS)["input_ids"]).pooler_output is None


def test_padding_on_the_left_counts_as_positions(model: SentenceTransformer) -> None:
    ids = model.tokenize(["a cat"])["input_ids"]
    shifted = torch.cat([torch.zeros(1, 2).long(), ids], dim=1)
    view = model[0].auto_model
    left = view(shifted, (shifted != 0).long()).last_hidden_state[:, 2:]
    assert not torch.allclose(left, view(ids).last_hidden_state)
    wide = torch.cat([torch.zeros(1, 64).long(), ids], dim=1)
    with pytest.raises(InputError, match="positions for 64"):
        view(wide, (wide != 0).long())


def test_configuration(model: SentenceTransformer, tiny: Callable[[str], Path]) -> None:
    config = model[0].auto_model.config
    assert config is model.config is model[0].config
    assert (config.hidden_size, config.num_hidden_layers, config.model_type) == (32, 2, "bert")
    assert config.initializer_range == 0.02  # a default of transformers
    assert config.to_dict()["vocab_size"] == config["vocab_size"]
    config.hidden_dropout_prob = 0.3
    assert model[0].config["hidden_dropout_prob"] == 0.3
    assert not hasattr(config, "no_such_thing")
    assert not hasattr(ConfigView(), "hidden_size")
    model.config = {**config, "note": "mine"}
    assert model[0].auto_model.config.note == "mine"
    assert SentenceTransformer(tiny("distilbert"), device="cpu").config.hidden_size == 32
    assert copy.deepcopy(config).hidden_size == 32


def test_added_tokens(model: SentenceTransformer, tmp_path: Path) -> None:
    before = model.encode(TEXTS)
    tokenizer, view = model.tokenizer, model[0].auto_model
    known = len(tokenizer)
    assert tokenizer.add_tokens(["[CAT]", "[DOG]"]) == 2
    table = view.resize_token_embeddings(len(tokenizer))
    assert table is view.get_input_embeddings() is view.embeddings.word_embeddings
    assert table.weight.shape == (known + 2, 32)
    assert model.tokenize(["[CAT] a [DOG]"])["input_ids"].tolist() == [[2, known, 6, known + 1, 3]]
    assert abs(model.encode(TEXTS) - before).max() < 1e-6
    model.save_pretrained(tmp_path / "grown")
    again = SentenceTransformer(tmp_path / "grown", device="cpu")
    assert abs(again.encode("[CAT] a [DOG]") - model.encode("[CAT] a [DOG]")).max() < 1e-6
    assert again.config.vocab_size == known + 2


def test_fewer_layers(model: SentenceTransformer, tmp_path: Path) -> None:
    view = model[0].auto_model
    view.encoder.layer = nn.ModuleList([view.encoder.layer[1]])
    view.config.num_hidden_layers = 1
    assert len(model.transformer.encoder.layers) == 1
    embedding = model.encode("a cat")
    model.save_pretrained(tmp_path / "shallow")
    again = SentenceTransformer(tmp_path / "shallow", device="cpu")
    assert abs(again.encode("a cat") - embedding).max() < 1e-6
    assert len(model[0].auto_model.encoder.layer) == 1
    with pytest.raises(ConfigError, match="layers that are not the encoder's"):
        model[0].auto_model.encoder.layer = nn.ModuleList([nn.Linear(2, 2)])


def test_leaves_are_replaced_in_the_encoder(model: SentenceTransformer) -> None:
    view = model[0].auto_model
    table = nn.Embedding(300, 32)
    view.embeddings.word_embeddings = table
    assert model.transformer.encoder.embeddings.word is table
    with pytest.raises(ConfigError, match="all that can be replaced here"):
        view.embeddings.something = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="expected minisbert's own encoder"):
        model[0].auto_model = nn.Linear(2, 2)
    model[0].auto_model = model[0].auto_model


def test_more_of_a_model_of_transformers(model: SentenceTransformer, tmp_path: Path) -> None:
    view = model[0].auto_model
    assert view.base_model is view
    assert view.device == torch.device("cpu")
    assert view.dtype == torch.float32
    assert view.num_parameters() == sum(parameter.numel() for parameter in model.parameters())
    view.train()
    assert model.transformer.encoder.training
    view.eval()
    assert not model.transformer.encoder.layers[0].attention.training
    view.gradient_checkpointing_enable()
    model.train()
    model(model.tokenize(TEXTS))["sentence_embedding"].sum().backward()
    view.gradient_checkpointing_disable()
    view.save_pretrained(tmp_path / "encoder")
    assert {path.name for path in (tmp_path / "encoder").iterdir()} == {"config.json", "model.safetensors"}


def test_copies_and_pickles_have_views_of_their_own(model: SentenceTransformer) -> None:
    model.tokenizer.add_tokens(["[CAT]"])
    assert model[0].auto_model.native is model.transformer.encoder
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other[0].auto_model.native is other.transformer.encoder is not model.transformer.encoder
        assert len(other.tokenizer) == len(model.tokenizer)


def test_an_encoder_of_transformers_is_shown_itself(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    (folder / "model.safetensors").unlink()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.ElectraConfig(vocab_size=vocabulary, embedding_size=16, **sizes)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    model = SentenceTransformer(folder, device="cpu")
    assert model[0].auto_model is model.transformer.encoder.model
    assert model.config.model_type == "electra"
    expected = model.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(model(model.tokenize(TEXTS))["sentence_embedding"], expected, atol=1e-6, rtol=0)
    left = {name: value.flip(1) for name, value in model.tokenize(["a cat", "a"]).items() if name != "modality"}
    assert model(left)["sentence_embedding"].shape == (2, 32)
    known = len(model.tokenizer)
    model.tokenizer.add_tokens(["[X]"])
    model[0].auto_model.resize_token_embeddings(len(model.tokenizer))
    assert model.tokenize(["[X]"])["input_ids"].tolist() == [[2, known, 3]]
    assert model.encode("[X]").shape == (32,)
    model.config = model.config
    model.gradient_checkpointing_enable()
    assert not model.has_peft_compatible_model()
