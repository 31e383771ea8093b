"""compat's SentenceTransformer, modules, view of the encoder and tokenizer give what the reference gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minisbert.compat import models
from minisbert.compat.model import SentenceTransformer
from minisbert.compat.model.card import SentenceTransformerModelCardData

reference = pytest.importorskip("sentence_transformers")
reference_models = pytest.importorskip("sentence_transformers.models")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

TEXTS = ["a cat sat on the mat", "the sky, the sea: one two three!", "dog", "why is the sea blue and not red"]
ARCHITECTURES = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet")
Both = tuple[Any, SentenceTransformer]


def both(folder: str | Path, **options: Any) -> Both:
    theirs = reference.SentenceTransformer(str(folder), device="cpu", **options)
    return theirs, SentenceTransformer(str(folder), device="cpu", **options)


def close(theirs: Any, ours: Any, *, bound: float = 2e-5) -> None:
    """Compare tensors, arrays, and collections of them; other values must be equal."""
    if isinstance(theirs, (torch.Tensor, np.ndarray)):
        assert type(theirs) is type(ours)
        assert theirs.dtype == ours.dtype
        assert theirs.shape == ours.shape
        wanted, got = (torch.as_tensor(value).double() for value in (theirs, ours))
        assert not wanted.numel() or (wanted - got).abs().max() <= bound
    elif isinstance(theirs, dict):
        assert theirs.keys() == ours.keys()
        for key, value in theirs.items():
            close(value, ours[key], bound=bound)
    elif isinstance(theirs, (list, tuple)):
        assert len(theirs) == len(ours)
        for one, other in zip(theirs, ours, strict=True):
            close(one, other, bound=bound)
    else:
        assert theirs == ours


def plain(features: dict[str, Any]) -> dict[str, Any]:
    """Features with zeros where there is padding, which minisbert does not compute, and without gradients."""
    tokens = features["token_embeddings"].detach() * features["attention_mask"][:, :, None]
    detached = {key: value.detach() if isinstance(value, torch.Tensor) else value for key, value in features.items()}
    return {**detached, "token_embeddings": tokens}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features(architecture: str, tiny: Callable[[str], Path], compare: Callable[..., None]) -> None:
    theirs, ours = both(tiny(architecture))
    for prompt in (None, "the "):
        features = theirs.preprocess(TEXTS, prompt=prompt)
        own = ours.preprocess(TEXTS, prompt=prompt)
        close(dict(features), own)
        wanted, got = plain(theirs(dict(features))), plain(ours(dict(features)))
        close(wanted, got)
        difference = (wanted["sentence_embedding"] - got["sentence_embedding"]).abs().max()
        compare("embeddings of padded features (compat)", float(difference), 1e-6, cases=len(TEXTS))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_on_the_left(architecture: str, tiny: Callable[[str], Path]) -> None:
    theirs, ours = both(tiny(architecture))
    features = {name: value.flip(1) for name, value in ours.tokenize(TEXTS).items() if name != "modality"}
    features["input_ids"] = torch.where(
        features["attention_mask"] == 1, features["input_ids"], torch.tensor(ours.transformer.padding_token)
    )
    close(plain(theirs(dict(features))), plain(ours(dict(features))))


def test_gradients(tiny: Callable[[str], Path]) -> None:
    theirs, ours = both(tiny("bert"))
    gradients = []
    for model in (theirs, ours):
        embeddings = model(model.tokenize(TEXTS))["sentence_embedding"]
        (embeddings @ torch.linspace(-1, 1, 32)).sum().backward()
        named = model[0].auto_model.named_parameters()
        gradients.append({name: one.grad for name, one in named if not name.startswith("pooler")})
    close(*gradients)


IDIOMS: dict[str, Callable[[Any, Any], Any]] = {
    "tokenizer call": lambda m, _: dict(m.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")),
    "tokenizer": lambda m, _: (
        *(len(m.tokenizer), m.tokenizer.vocab_size, m.tokenizer.cls_token, m.tokenizer.model_max_length),
        *(m.tokenizer.encode("a b"), m.tokenizer.tokenize("unbelievable"), m.tokenizer.decode([2, 6, 3])),
        *(m.tokenizer.convert_ids_to_tokens([2, 3]), type(m.tokenizer).__name__, type(m[0].tokenizer).__name__),
    ),
    "values": lambda m, _: [(one["sentence_embedding"], sorted(one)) for one in m.encode(TEXTS, output_value=None)],
    "values of one": lambda m, _: m.encode(TEXTS[0], output_value=None),
    "token embeddings": lambda m, _: m.encode(TEXTS, output_value="token_embeddings"),
    "task": lambda m, _: m.encode(TEXTS, task="x"),
    "a dictionary": lambda m, _: m.encode([{"text": text} for text in TEXTS]),
    "by place": lambda m, _: m.encode(TEXTS, None, "the ", 2, False, "sentence_embedding", "float32"),
    "older name": lambda m, _: m.encode(sentences=TEXTS, normalize_embeddings=True, truncate_dim=5),
    "as tensor": lambda m, _: m.encode(TEXTS, convert_to_tensor=True),
    "as list": lambda m, _: m.encode(TEXTS, convert_to_numpy=False),
    "similarity": lambda m, _: m.similarity(embeddings1=m.encode(TEXTS), embeddings2=m.encode(TEXTS)),
    "pairs": lambda m, _: m.similarity_pairwise(m.encode(TEXTS), embeddings2=m.encode(TEXTS)),
    "names": lambda m, _: (
        *(m.get_backend(), m.get_model_kwargs(), m.modalities, m.supports("text"), m.supports("image"), m.dtype),
        *(type(m._first_module()).__name__, type(m._last_module()).__name__, str(m._target_device)),
        *(m.prompts, m.default_prompt_name, m.similarity_fn_name, m.truncate_dim, m.max_seq_length),
    ),
    "one or several": lambda m, _: [m.is_singular_input(one) for one in ("a", ["a"], ("a", "b"), {"text": "a"}, None)],
    "sizes": lambda m, _: (
        *(m[0].get_word_embedding_dimension(), m[0].get_embedding_dimension(), m[0].max_seq_length),
        *(m[1].get_sentence_embedding_dimension(), m[1].pooling_output_dimension, m.get_embedding_dimension()),
    ),
    "settings": lambda m, _: [module.get_config_dict() for module in list(m)[1:]],
    "encoder": lambda m, _: (
        *(
            m[0].auto_model.embeddings.word_embeddings.weight.shape,
            len([*m[0].auto_model.encoder.layer[:1].parameters()]),
        ),
        *(m[0].auto_model.config.hidden_size, m.config.num_hidden_layers, m[0].config.model_type),
        *(name for name, _ in m[0].auto_model.named_parameters() if not name.startswith("pooler")),
    ),
    "call": lambda m, _: [
        *(m[0].auto_model(**{k: v for k, v in m.tokenize(TEXTS).items() if k != "modality"})[1].detach(),),
        m[0].auto_model(m.tokenize(TEXTS[:1])["input_ids"]).last_hidden_state.detach(),
        m[0].auto_model(m.tokenize(TEXTS[:1])["input_ids"], output_hidden_states=True).hidden_states[1].detach(),
    ],
    "shorter": lambda m, _: (setattr(m, "max_seq_length", 4), m.tokenizer.model_max_length, m.encode(TEXTS)),
    "shorter there": lambda m, _: (setattr(m.tokenizer, "model_max_length", 4), m.max_seq_length, m.encode(TEXTS)),
    "added": lambda m, _: (
        *(m.tokenizer.add_tokens(["[X]"]), m[0].auto_model.resize_token_embeddings(len(m.tokenizer)).weight.shape),
        *(m.tokenize(["a [X]"])["input_ids"], m[0].auto_model.config.vocab_size, m.encode(TEXTS)),
    ),
    "kinds": lambda m, mm: (
        *(isinstance(m[0], mm.Transformer), isinstance(m[1], mm.Pooling), isinstance(m[2], mm.Normalize)),
        *(isinstance(m[0], mm.InputModule), isinstance(m[1], mm.Module), isinstance(m[1], mm.InputModule)),
    ),
    "one by one": lambda m, _: m[2](m[1](m[0](m.tokenize(TEXTS))))["sentence_embedding"].detach(),
    "card": lambda m, _: (m.model_card_data.tags, m.model_card_data.language, m.model_card_data.train_datasets),
    "pooling by switch": lambda _, mm: mm.Pooling(8, pooling_mode_cls_token=True).get_config_dict(),
    "no switch": lambda _, mm: mm.Pooling(8, pooling_mode_mean_tokens=False).get_config_dict(),
    "two switches": lambda _, mm: mm.Pooling(
        word_embedding_dimension=8, pooling_mode_mean_tokens=True, pooling_mode_max_tokens=True
    ).get_config_dict(),
    "dense": lambda _, mm: mm.Dense(3, 2, activation_function=torch.nn.Identity()).get_config_dict(),
    "dense of vectors": lambda _, mm: mm.Dense(3, 2, init_weight=torch.eye(3)[:2], init_bias=torch.ones(2))(
        {"sentence_embedding": torch.ones(2, 3)}
    )["sentence_embedding"].detach(),
    "pooling of tokens": lambda _, mm: [
        mm.Pooling(4, mode)(
            {
                "token_embeddings": torch.arange(24.0).reshape(2, 3, 4),
                "attention_mask": torch.tensor([[1, 1, 0], [0, 1, 1]]),
            }
        )["sentence_embedding"]
        for mode in mm.Pooling.POOLING_MODES
    ],
}


@pytest.mark.parametrize("idiom", IDIOMS)
def test_idioms(idiom: str, tiny: Callable[[str], Path]) -> None:
    theirs, ours = both(tiny("bert"))
    close(IDIOMS[idiom](theirs, reference_models), IDIOMS[idiom](ours, models))


def test_a_real_model(minilm: Path) -> None:
    theirs, ours = both(minilm)
    for idiom in ("tokenizer call", "values", "similarity", "sizes", "settings", "call"):
        close(IDIOMS[idiom](theirs, reference_models), IDIOMS[idiom](ours, models))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str, tiny: Callable[[str], Path]) -> None:
    theirs, ours = both(tiny("bert"), model_kwargs={"torch_dtype": dtype})
    assert theirs.dtype == ours.dtype
    for options in ({}, {"convert_to_tensor": True}, {"output_value": "token_embeddings"}, {"convert_to_numpy": False}):
        close(theirs.encode(TEXTS, **options), ours.encode(TEXTS, **options), bound=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"tokenizer_kwargs": {"model_max_length": 6}},
        {"processor_kwargs": {"model_max_length": 6, "truncation_side": "left"}},
        {"config_kwargs": {"output_hidden_states": True}},
        {"prompts": {"query": "the ", "other": "a "}, "default_prompt_name": "other", "truncate_dim": 7},
        {"trust_remote_code": True, "backend": "torch", "model_kwargs": {"attn_implementation": "eager"}},
    ],
)
def test_arguments(options: dict[str, Any], tiny: Callable[[str], Path]) -> None:
    theirs, ours = both(tiny("bert"), **options)
    assert theirs.max_seq_length == ours.max_seq_length
    close(theirs.encode(TEXTS), ours.encode(TEXTS))
    close(theirs.encode_query(TEXTS), ours.encode_query(TEXTS))
    features = ours.tokenize(TEXTS)
    assert theirs(dict(features)).keys() == ours(dict(features)).keys()


def test_a_model_of_parts(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    found = []
    for kind, mm in ((reference.SentenceTransformer, reference_models), (SentenceTransformer, models)):
        word = mm.Transformer(str(tiny("bert")), max_seq_length=9)
        pooling = mm.Pooling(word.get_word_embedding_dimension(), pooling_mode="weightedmean")
        weight = torch.linspace(-1, 1, 32 * 5).reshape(5, 32)
        dense = mm.Dense(32, 5, activation_function=torch.nn.Sigmoid(), init_weight=weight, init_bias=torch.zeros(5))
        model = kind(modules=[word, pooling, dense, mm.Normalize()], device="cpu")
        model.save(str(tmp_path / kind.__module__))
        found.append(model.encode(TEXTS))
    close(*found)
    for written in (reference.SentenceTransformer, SentenceTransformer):
        for kind in (reference.SentenceTransformer, SentenceTransformer):
            again = kind(str(tmp_path / written.__module__), device="cpu")
            assert again.max_seq_length == 9
            close(found[0], again.encode(TEXTS))


def test_weighted_layers(tiny: Callable[[str], Path]) -> None:
    found = []
    for kind, mm in ((reference.SentenceTransformer, reference_models), (SentenceTransformer, models)):
        for shown in (True, False):
            word = mm.Transformer(str(tiny("bert")), config_kwargs={"output_hidden_states": shown})
            weighted = mm.WeightedLayerPooling(32, num_hidden_layers=2, layer_start=1)
            model = kind(modules=[word, weighted, mm.Pooling(32)], device="cpu")
            found += [model.encode(TEXTS), model(model.tokenize(TEXTS))["sentence_embedding"].detach()]
    close(found[:4], found[4:])


def test_fewer_layers(tiny: Callable[[str], Path]) -> None:
    theirs, ours = both(tiny("bert"))
    for model in (theirs, ours):
        encoder = model[0].auto_model
        encoder.encoder.layer = torch.nn.ModuleList([encoder.encoder.layer[1]])
        encoder.config.num_hidden_layers = 1
    close(theirs.encode(TEXTS), ours.encode(TEXTS))


# ---- signatures -----------------------------------------------------------------------------------------------------

METHODS = """
    encode encode_query encode_document encode_multi_process similarity similarity_pairwise save save_pretrained
    push_to_hub save_to_hub preprocess tokenize forward evaluate start_multi_process_pool stop_multi_process_pool
    get_max_seq_length get_sentence_features is_singular_input supports get_backend get_model_kwargs
    truncate_embeddings truncate_sentence_embeddings set_pooling_include_prompt load compile
    gradient_checkpointing_enable get_embedding_dimension get_sentence_embedding_dimension add_adapter load_adapter
    set_adapter delete_adapter active_adapters active_adapter disable_adapters enable_adapters
    get_adapter_state_dict __init__""".split()
MODULES = "Transformer Pooling Dense Normalize LayerNorm Dropout WeightedLayerPooling".split()


def parameters(function: Any) -> list[tuple[str, Any, str]]:
    found = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, str(one.default)) for one in found]


@pytest.mark.parametrize("name", METHODS)
def test_signatures_of_the_model(name: str) -> None:
    theirs = getattr(reference.SentenceTransformer, name)
    assert parameters(getattr(SentenceTransformer, name)) == parameters(theirs)


@pytest.mark.parametrize("name", MODULES)
def test_signatures_of_modules(name: str) -> None:
    for method in ("__init__", "load", "save", "forward", "get_config_dict"):
        theirs, ours = getattr(getattr(reference_models, name), method), getattr(getattr(models, name), method)
        assert parameters(ours) == parameters(theirs), method


def test_entries_of_the_card() -> None:
    ours, theirs = SentenceTransformerModelCardData, reference.SentenceTransformerModelCardData
    assert parameters(ours) == parameters(theirs)
    for name, value in vars(ours()).items():
        assert name == "model" or value == getattr(theirs(), name)
