"""What may stand in the configuration files of a model folder: what is honoured, what makes no difference, what not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_folders import add_module, edit, files, load, read

from minisbert import SentenceTransformer, modules
from minisbert.errors import ConfigError, ModelError
from minisbert.storage import dialects

TEXTS = ["A cat sat on the mat", "one", "why is the sky blue and the sea not " * 6]


@pytest.fixture
def folder(tiny: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(tiny("bert"), tmp_path / "model")


# ---- modules.json --------------------------------------------------------------------------------------------------


def test_every_type_name_is_read(folder: Path) -> None:
    add_module(folder, "Dropout", {"dropout": 0.1})
    names = {
        kind: [name for name, of in dialects.MODULE_TYPES.items() if of == kind] for kind in dialects.WRITTEN_TYPES
    }
    assert min(map(len, names.values())) >= 4
    entries = read(folder / "modules.json")
    for index, kind in enumerate(("Transformer", "Pooling", "Dropout")):
        for name in names[kind]:
            entries[index]["type"] = name
            (folder / "modules.json").write_text(json.dumps(entries))
            assert [type(module).__name__ for module in load(folder)] == ["Transformer", "Pooling", "Dropout"]
    for kind in ("Normalize", "Dense", "LayerNorm"):
        assert {dialects.module_kind(name) for name in names[kind]} == {kind}


@pytest.mark.parametrize("name", ["os.system", "custom.Pooling", "sentence_transformers.models.Other", None, 3, ["a"]])
def test_no_name_in_modules_json_is_imported(
    name: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's own code, in its folder and on the path, stays untouched."""
    for place in (folder, tmp_path / "path"):
        place.mkdir(exist_ok=True)
        (place / "custom.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path / "path")
    entries = read(folder / "modules.json")
    entries[1]["type"] = name
    (folder / "modules.json").write_text(json.dumps(entries))
    with pytest.raises(ModelError, match="one of Transformer, Pooling, .* runs no code from a model folder"):
        load(folder)
    assert "custom" not in sys.modules
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("model_type", ["bert", "mystery"])
def test_no_code_of_an_encoder_is_run(model_type: str, folder: Path, tmp_path: Path) -> None:
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    own = {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Model", "AutoTokenizer": "modeling.Tokenizer"}
    edit(folder / "config.json", model_type=model_type, auto_map=own)
    edit(folder / "sentence_bert_config.json", model_args={"trust_remote_code": True})
    edit(folder / "tokenizer_config.json", auto_map=own, tokenizer_class="Tokenizer")
    if model_type == "bert":
        assert load(folder).encode(TEXTS).shape == (3, 32)
    else:
        with pytest.raises(ModelError, match="minisbert runs no code from a model folder"):
            load(folder)
    assert not (tmp_path / "executed").exists()


# ---- sentence_bert_config.json -------------------------------------------------------------------------------------
SETTINGS = "sentence_bert_config.json"


def test_the_first_settings_file_with_content_counts(folder: Path) -> None:
    (folder / SETTINGS).write_text("{}")
    for length, name in enumerate(reversed(dialects.TRANSFORMER_CONFIGS[1:]), 20):
        edit(folder / name, max_seq_length=length)
        assert load(folder).max_seq_length == length
    assert len(dialects.TRANSFORMER_CONFIGS) == 7


@pytest.mark.parametrize(
    "content",
    [
        {},
        {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        },
        {"unpad_inputs": True, "query_length": None, "document_length": None, "query_expansion": None},
        {"processing_kwargs": {"common": {"padding": "max_length"}, "text": {"truncation": True}, "image": {"a": 1}}},
        {"model_args": {"attn_implementation": "eager", "add_pooling_layer": False, "trust_remote_code": True}},
        {"tokenizer_args": {"use_fast": False, "padding_side": "left", "token": "x", "trust_remote_code": True}},
        {"config_kwargs": {"use_cache": True, "trust_remote_code": True}, "model_kwargs": None},
        {"do_lower_case": False, "tokenizer_name_or_path": None, "cache_dir": "x", "backend": "onnx"},
    ],
)
def test_settings_that_make_no_difference(content: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    expected = load(folder)
    edit(folder / SETTINGS, **content)
    model = load(folder)
    assert np.array_equal(model.encode(TEXTS), expected.encode(TEXTS))
    model.save_pretrained(tmp_path / "saved")
    expected.save_pretrained(tmp_path / "expected")
    assert files(tmp_path / "saved") == files(tmp_path / "expected")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"pooling": "mean"}, "got key 'pooling'; expected some of max_seq_length"),
        ({"transformer_task": "fill-mask"}, "got transformer_task='fill-mask'"),
        ({"module_output_name": "scores"}, "got module_output_name='scores'"),
        ({"query_length": 32}, "got query_length=32"),
        ({"query_expansion": {"strategy": "fixed"}}, "got query_expansion="),
        ({"tokenizer_name_or_path": "other"}, "got tokenizer_name_or_path='other'"),
        ({"modality_config": {"text": {"method": "embed", "method_output_name": "x"}}}, "got modality_config.text="),
        ({"modality_config": {"image": {}}}, "got modality_config.text=None"),
        (
            {
                "modality_config": {
                    "text": {"method": "forward", "method_output_name": "last_hidden_state"},
                    "message": {"method": "forward", "method_output_name": "last_hidden_state"},
                }
            },
            "chat template",
        ),
        ({"processing_kwargs": {"text": {"truncation": False}}}, "got processing_kwargs.truncation=False"),
        ({"processing_kwargs": {"text": {"stride": 3}}}, "got processing_kwargs.stride=3"),
        ({"processing_kwargs": {"smell": {}}}, "got 'smell' in processing_kwargs"),
        ({"processing_kwargs": {"text": 3}}, "expected an object of objects"),
        ({"model_args": {"quantization_config": {}}}, "got 'quantization_config' in model_args"),
        (
            {"model_args": {"torch_dtype": "int4"}},
            "got dtype='int4'; expected float32, float64, float16, bfloat16 or auto",
        ),
        ({"tokenizer_args": {"unk_token": "x"}}, "got 'unk_token' in tokenizer_args"),
        ({"tokenizer_args": {"truncation_side": "middle"}}, "got truncation_side='middle'; expected left or right"),
        ({"config_args": [1]}, "expected an object"),
        ({"max_seq_length": 0}, "got max_seq_length=0"),
        ({"max_seq_length": True}, "got max_seq_length=True"),
        ({"max_seq_length": 8.0}, "got max_seq_length=8.0"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(content: dict[str, Any], message: str, folder: Path) -> None:
    edit(folder / SETTINGS, **content)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "tokenizer", "length"),
    [
        ({"max_seq_length": 20}, {"model_max_length": 10}, 20),
        ({"max_seq_length": None}, {"model_max_length": 10}, 10),
        ({}, {"model_max_length": 1000}, 64),
        ({}, {"model_max_length": 1e30}, 64),
        ({}, {"model_max_length": None}, 64),
        ({"max_seq_length": 20, "tokenizer_args": {"model_max_length": 12}}, {}, 12),
        ({"max_seq_length": 20, "processing_kwargs": {"text": {"max_length": 9}}}, {}, 9),
    ],
)
@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_longest_text(
    settings: dict[str, Any],
    tokenizer: dict[str, Any],
    length: int,
    architecture: str,
    tiny: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """RoBERTa has 66 positions in its configuration here, of which the first two are never used."""
    folder = shutil.copytree(tiny(architecture), tmp_path / "model")
    (folder / SETTINGS).write_text(json.dumps(settings))
    edit(folder / "tokenizer_config.json", **tokenizer)
    model = load(folder)
    assert model.max_seq_length == length
    assert model.encode("the sea " * 100).shape == (32,)
    model.save_pretrained(tmp_path / "saved")
    assert load(tmp_path / "saved").max_seq_length == length


@pytest.mark.filterwarnings("ignore:a new tokenizer.json is saved")
def test_arguments_for_tokenizer_and_configuration_are_honoured(folder: Path, tmp_path: Path) -> None:
    before = load(folder).encode(TEXTS)
    edit(folder / SETTINGS, tokenizer_args={"truncation_side": "left", "do_lower_case": False}, max_seq_length=8)
    edit(folder / SETTINGS, config_kwargs={"hidden_act": "relu"}, config_args={"hidden_act": "silu"})
    model = load(folder)
    assert model.transformer.config["hidden_act"] == "silu"  # the old name of the two goes before
    assert model.tokenizer.encode("A").tokens == ["[CLS]", "A", "[SEP]"]
    assert np.abs(model.encode("the cat " * 20 + "one") - model.encode("the cat " * 20 + "two")).max() > 1e-3
    model.save_pretrained(tmp_path / "saved")
    assert np.array_equal(load(tmp_path / "saved").encode(TEXTS), model.encode(TEXTS))
    assert np.abs(model.encode(TEXTS) - before).max() > 1e-3
    assert read(tmp_path / "saved" / SETTINGS) == {"max_seq_length": 8, "do_lower_case": False}
    assert read(tmp_path / "saved" / "tokenizer_config.json")["truncation_side"] == "left"
    assert read(tmp_path / "saved" / "config.json")["hidden_act"] == "silu"


# ---- config_sentence_transformers.json -----------------------------------------------------------------------------
MODEL = "config_sentence_transformers.json"


def test_prompts(folder: Path, tmp_path: Path) -> None:
    edit(folder / MODEL, prompts={"query": None, "passage": "p: "}, default_prompt_name="passage")
    model = load(folder, prompts={"passage": "mine: "})
    assert model.prompts == {"query": "", "document": "", "passage": "mine: "}
    model.save_pretrained(tmp_path / "saved")
    assert load(tmp_path / "saved").prompts == model.prompts
    assert load(tmp_path / "saved").default_prompt_name == "passage"
    edit(folder / MODEL, default_prompt_name="mine")
    with pytest.raises(ConfigError, match="got prompt_name='mine'; expected one of"):
        load(folder)
    assert load(folder, prompts={"mine": "m: "}).default_prompt_name == "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"prompts": ["a"]}, "got prompts="),
        ({"prompts": {"a": 1}}, "got prompts="),
        ({"truncate_dim": "8"}, "truncate_dim"),
    ],
)
def test_model_settings_that_cannot_be_read(content: dict[str, Any], message: str, folder: Path) -> None:
    edit(folder / MODEL, **content)
    with pytest.raises(ModelError, match=message):
        load(folder)


@pytest.mark.parametrize("name", [None, "cosine", "maxsim", ["x"], ...])
def test_similarity_that_is_unknown_is_the_cosine(name: Any, folder: Path) -> None:
    edit(folder / MODEL, **({} if name is ... else {"similarity_fn_name": name}))
    assert load(folder).similarity_fn_name == "cosine"


def test_newer_versions_and_truncate_dim(folder: Path, tmp_path: Path) -> None:
    edit(folder / MODEL, __version__={"sentence_transformers": "99.0"}, truncate_dim=5, similarity_fn_name="dot")
    model = load(folder)
    assert model.encode(TEXTS).shape == (3, 5)
    model.save_pretrained(tmp_path / "saved")
    written = read(tmp_path / "saved" / MODEL)
    assert (written["truncate_dim"], written["similarity_fn_name"]) == (5, "dot")


# ---- what is written -----------------------------------------------------------------------------------------------


def test_written_files_to_the_letter(folder: Path, tmp_path: Path) -> None:
    """Key by key what versions 4 and 5 of the reference write, and nothing that they could not read."""
    base = load(folder)
    parts = [modules.Dense(32, 8), modules.LayerNorm(8), modules.Dropout(0.25), modules.Normalize()]
    SentenceTransformer(modules=[base[0], base[1], *parts], device="cpu").save_pretrained(tmp_path / "saved")

    def text(name: str) -> str:
        return (tmp_path / "saved" / name).read_text()

    names = ["Transformer", "Pooling", "Dense", "LayerNorm", "Dropout", "Normalize"]
    entries = [
        f'  {{\n    "idx": {i},\n    "name": "{i}",\n    "path": "{f"{i}_{name}" if i else ""}",\n'
        f'    "type": "sentence_transformers.models.{name}"\n  }}'
        for i, name in enumerate(names)
    ]
    assert text("modules.json") == "[\n" + ",\n".join(entries) + "\n]"
    assert text(SETTINGS) == '{\n    "max_seq_length": 48,\n    "do_lower_case": false\n}'
    assert text("1_Pooling/config.json") == (
        '{\n    "word_embedding_dimension": 32,\n    "pooling_mode_cls_token": false,\n'
        '    "pooling_mode_mean_tokens": true,\n    "pooling_mode_max_tokens": false,\n'
        '    "pooling_mode_mean_sqrt_len_tokens": false,\n    "pooling_mode_weightedmean_tokens": false,\n'
        '    "pooling_mode_lasttoken": false,\n    "include_prompt": true\n}'
    )
    assert text("2_Dense/config.json") == (
        '{\n    "in_features": 32,\n    "out_features": 8,\n    "bias": true,\n'
        '    "activation_function": "torch.nn.modules.activation.Tanh"\n}'
    )
    assert text("3_LayerNorm/config.json") == '{\n    "dimension": 8\n}'
    assert text("4_Dropout/config.json") == '{\n    "dropout": 0.25\n}'
    assert list(read(tmp_path / "saved" / MODEL)) == [
        "model_type",
        "__version__",
        "prompts",
        "default_prompt_name",
        "similarity_fn_name",
    ]


def test_only_what_was_changed_changes(folder: Path, tmp_path: Path) -> None:
    edit(folder / "config.json", my_key={"a": [1]}, dtype="float32", torch_dtype="float32")
    edit(folder / MODEL, requirements={"transformers": ">=4"})
    (folder / "README.md").write_text("my card\n")
    model = load(folder)
    model.save_pretrained(tmp_path / "before")
    model.max_seq_length = 12
    model.save_pretrained(tmp_path / "after")
    before, after = files(tmp_path / "before"), files(tmp_path / "after")
    assert [name for name in before if before[name] != after[name]] == [SETTINGS]
    assert read(tmp_path / "after" / SETTINGS) == {"max_seq_length": 12, "do_lower_case": False}
    assert read(tmp_path / "after" / "config.json") == read(folder / "config.json")
    assert read(tmp_path / "after" / MODEL)["requirements"] == {"transformers": ">=4"}
