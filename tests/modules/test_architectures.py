"""Configurations of the architectures with rotary positions: what is read, in every form, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, build_family
from places import ROOT
from safetensors.torch import load_file, save_file

from minisbert import SentenceTransformer, kernels
from minisbert.cli import main
from minisbert.errors import ConfigError, ModelError
from minisbert.modules.architectures import architecture_of, current, encoder_config, is_native
from minisbert.modules.encoder import Encoder
from minisbert.modules.layers import make_norm
from minisbert.modules.lora import LoraConfig
from minisbert.modules.pooling import POOLING_MODES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
TEXTS = ["a cat", "the dog ran fast to the sea", "one", " ".join(["red blue sky sea tree"] * 30)]
MODERN_BERT = {"model_type": "modernbert", "vocab_size": 100, "hidden_size": 32, "num_attention_heads": 2}
MODERN_BERT |= {"num_hidden_layers": 4, "intermediate_size": 40, "pad_token_id": 0}
QWEN3 = {**MODERN_BERT, "model_type": "qwen3"}
GEMMA3 = {**MODERN_BERT, "model_type": "gemma3_text", "num_key_value_heads": 1, "sliding_window": 12}


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_transformers(family: str, tmp_path: Path) -> None:
    import transformers

    folder = build_family(tmp_path / "model", family)
    model = SentenceTransformer(folder, device="cpu")
    assert isinstance(model.transformer.encoder, Encoder)
    if family == "gemma3_text" and transformers.__version__.startswith("4.56."):
        pytest.skip("transformers 4.56 attends in one direction only")
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    for text in TEXTS:
        ids = model.preprocess([text])["input_ids"]
        with torch.no_grad():
            expected = theirs(input_ids=ids).last_hidden_state[0]
        for mode in ("auto", "reference"):
            with kernels.use(mode):
                got = model.encode(text, output_value="token_embeddings", convert_to_tensor=True)
            torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)


def test_older_forms_of_rotary_settings() -> None:
    new = {"full_attention": {"rope_theta": 5e4, "rope_type": "default"}, "sliding_attention": {"rope_theta": 7e3}}
    expected = encoder_config({**MODERN_BERT, "rope_parameters": new})
    old = {"global_rope_theta": 5e4, "local_rope_theta": 7e3, "rope_scaling": None}
    assert encoder_config({**MODERN_BERT, **old}) == expected
    assert [layer.window for layer in expected.attention] == [None, 64, 64, None]
    bases = [layer.rotary_base for layer in encoder_config(MODERN_BERT).attention]
    assert bases == [160_000.0, 10_000.0, 10_000.0, 160_000.0]
    flat = encoder_config({**QWEN3, "rope_theta": 1e6})
    assert flat == encoder_config({**QWEN3, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}})
    local = encoder_config({**GEMMA3, "rope_theta": 2e6, "rope_local_base_freq": 3e4, "sliding_window_pattern": 2})
    assert [layer.rotary_base for layer in local.attention] == [3e4, 2e6, 3e4, 2e6]


def test_windows_of_gemma_reach_half_as_far_in_both_directions() -> None:
    both = encoder_config({**GEMMA3, "use_bidirectional_attention": True}).attention[0]
    back = encoder_config(GEMMA3).attention[0]
    assert (both.window, both.causal, back.window, back.causal) == (6, False, 11, True)


def test_scaled_rotary_positions_run_through_transformers() -> None:
    assert not is_native({**QWEN3, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}})
    assert not is_native({**GEMMA3, "attn_logit_softcapping": 50.0})
    assert not is_native({**MODERN_BERT, "hidden_activation": "quick_gelu"})
    assert is_native({**MODERN_BERT, "rope_scaling": None})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**MODERN_BERT, "rope_scaling": {"rope_type": "spiral"}}, "got rope_type 'spiral'; expected one of default"),
        ({**QWEN3, "rope_parameters": [1]}, r"got \[1\] for rope_parameters; expected settings by name"),
        ({**QWEN3, "rope_theta": 0}, "got 0 for rope_theta; expected a number above 0"),
        ({**QWEN3, "num_attention_heads": 6, "num_key_value_heads": 4}, "got 6 attention heads and 4 for keys"),
        ({**QWEN3, "head_dim": 7}, "got heads of size 7; expected an even size"),
        (
            {**QWEN3, "use_sliding_window": True, "sliding_window": None, "layer_types": ["sliding_attention"] * 4},
            "got layers with a sliding window and no sliding_window",
        ),
        (
            {**QWEN3, "layer_types": ["sliding_attention"] * 4},
            "got layers with a sliding window and use_sliding_window",
        ),
        ({**GEMMA3, "sliding_window": None}, "sliding window and no sliding_window"),
        ({**MODERN_BERT, "num_attention_heads": 3}, "got hidden size 32 and 3 attention heads"),
        ({**MODERN_BERT, "layer_types": ["full_attention"]}, "expected 4 of full_attention and sliding_attention"),
        ({**GEMMA3, "rope_parameters": {"rope_theta": 5.0}}, "expected full_attention and sliding_attention, with"),
        ({**QWEN3, "rope_parameters": {"full_attention": {"rope_theta": 5.0}}}, "expected those of all layers"),
        ({**QWEN3, "rope_parameters": {}, "rope_scaling": {"type": "mrope"}}, "got rope_type 'mrope'; expected one of"),
        ({**MODERN_BERT, "num_hidden_layers": 0}, "got 0 for num_hidden_layers; expected at least 1, since layers"),
        ({**MODERN_BERT, "model_type": "gte", "num_hidden_layers": 0}, "got 0 for num_hidden_layers"),
        ({**MODERN_BERT, "is_causal": True}, "got is_causal=True for an encoder, in which every token sees all"),
        ({**MODERN_BERT, "model_type": "bert", "is_causal": True}, "got is_causal=True for an encoder"),
        ({**MODERN_BERT, "model_type": "bert", "type_vocab_size": 0}, "got 0 for type_vocab_size; expected at least 1"),
        ({**MODERN_BERT, "norm_bias": 1}, "got 1 for norm_bias; expected true or false"),
        ({**MODERN_BERT, "local_attention": "x"}, "got 'x' for local_attention; expected a number above 0"),
        ({**MODERN_BERT, "model_type": "new", "rope_scaling": {"type": "ntk"}}, "load the model in its converted form"),
        ({"model_type": "nomic_bert", "n_embd": 8, "causal": True}, "got causal=True for model_type nomic_bert"),
    ],
)
def test_bad_configurations(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        encoder_config(current(config))
    assert "\n" not in str(caught.value)


def test_no_padding_token() -> None:
    """Texts are packed, and need none; a configuration that says so has no use for the family's default."""
    assert encoder_config({**MODERN_BERT, "pad_token_id": None}).pad_token_id == 0


def test_both_forms_of_nomic_bert_in_one_configuration() -> None:
    """The keys of transformers count, as in transformers, when it has saved those of the older form with its own."""
    both = {"model_type": "nomic_bert", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    both |= {"n_embd": 64, "n_layer": 9, "n_head": 4, "rope_parameters": {"rope_theta": 500.0}}
    read = encoder_config(current(both))
    assert (read.hidden_size, read.num_hidden_layers, read.attention[0].rotary_base) == (32, 2, 500.0)


@pytest.mark.parametrize("family", ["modernbert", "nomic_bert", "gte", "qwen3", "gemma3_text"])
def test_rotary_positions_have_no_end(
    family: str, tmp_path: Path, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build_family(tmp_path / "model", family, max_position_embeddings=50)
    model = SentenceTransformer(folder, device="cpu", truncation="count")
    assert model.max_seq_length == 200  # as sentence_bert_config.json has it
    assert not [one for one in recwarn if "positions" in str(one.message)]
    model.max_seq_length = 300
    assert model.encode("cat " * 299).shape == (model.get_sentence_embedding_dimension(),)
    with pytest.raises(ConfigError, match="got max_seq_length=1; this model takes at least"):
        model.max_seq_length = 1
    capsys.readouterr()
    assert main(["inspect", "--json", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["max_seq_length"] == 200
    (folder / "sentence_bert_config.json").unlink()
    assert SentenceTransformer(folder, device="cpu").max_seq_length == 50
    assert main(["inspect", "--json", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["max_seq_length"] == 50


def test_configurations_of_code_beside_a_checkpoint(tmp_path: Path) -> None:
    """What transformers reads as a model of 768 dimensions and 12 layers is read as it is meant."""
    folder = build_family(tmp_path / "nomic", "nomic_bert")
    expected = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    config = json.loads((folder / "config.json").read_text())
    original = {
        **{"model_type": "nomic_bert", "n_embd": 48, "n_head": 3, "n_layer": 4, "n_inner": 40, "n_positions": 256},
        **{"vocab_size": config["vocab_size"], "activation_function": "swiglu", "rotary_emb_base": 1000},
        **{"rotary_emb_fraction": 1.0, "type_vocab_size": 2, "prenorm": False, "auto_map": {"AutoModel": "x--y.Z"}},
        **{"qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "layer_norm_epsilon": 1e-12},
    }
    (folder / "config.json").write_text(json.dumps(original))
    model = SentenceTransformer(folder, device="cpu")
    assert (model.encode(TEXTS) == expected).all()
    model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["hidden_size"] == 48
    assert {"n_embd", "auto_map"}.isdisjoint(saved)
    assert (SentenceTransformer(tmp_path / "saved", device="cpu").encode(TEXTS) == expected).all()


def test_gte_in_the_form_of_its_own_code(tmp_path: Path) -> None:
    folder = build_family(tmp_path / "gte", "gte")
    expected = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    original = {**config, "model_type": "new", "rope_theta": 160_000.0, "pack_qkv": True, "rope_scaling": None}
    (folder / "config.json").write_text(json.dumps(original))
    tensors = {f"new.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model = SentenceTransformer(folder, device="cpu")
    assert (model.encode(TEXTS) == expected).all()
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"] == "gte"
    assert (SentenceTransformer(tmp_path / "saved", device="cpu").encode(TEXTS) == expected).all()


def test_joined_weights_of_odd_rows_are_refused(tmp_path: Path) -> None:
    folder = build_family(tmp_path / "model", "modernbert")
    tensors = load_file(folder / "model.safetensors")
    tensors["layers.1.attn.Wqkv.weight"] = tensors["layers.1.attn.Wqkv.weight"][:-1].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"layers.1.attn.Wqkv.weight of shape \(143, 48\); expected rows that 3"):
        SentenceTransformer(folder, device="cpu")


def test_adapters_need_layers_of_their_own(tmp_path: Path) -> None:
    model = SentenceTransformer(build_family(tmp_path / "model", "modernbert"), device="cpu")
    with pytest.raises(ConfigError, match="whose checkpoints join the layers that an adapter changes"):
        model.add_adapter(LoraConfig())


@pytest.mark.parametrize("prefix", ["", "new."])
@pytest.mark.parametrize("family", ["nomic_bert", "gte", "qwen3", "gemma3_text"])
def test_adapters(family: str, prefix: str, tmp_path: Path) -> None:
    """Files of nomic_bert and gte join layers that modules have apart, of which an adapter has the names."""
    folder = build_family(tmp_path / "model", family)
    tensors = load_file(folder / "model.safetensors")
    save_file({f"{prefix}{name}": one for name, one in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    model = SentenceTransformer(folder, device="cpu")
    model.add_adapter(LoraConfig(target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    expected = model.encode(TEXTS)
    model.save_pretrained(tmp_path / "adapter")
    got = SentenceTransformer(tmp_path / "adapter", device="cpu").encode(TEXTS)
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=0)
    model.merge_and_unload()
    model.save_pretrained(tmp_path / "merged")
    merged = SentenceTransformer(tmp_path / "merged", device="cpu").encode(TEXTS)
    torch.testing.assert_close(merged, expected, atol=2e-6, rtol=0)
    assert abs(merged - SentenceTransformer(folder, device="cpu").encode(TEXTS)).max() > 1e-2


@pytest.mark.parametrize(
    ("family", "module", "rows"), [("modernbert", "attn.Wqkv", 144), ("gte", "mlp.up_gate_proj", 80)]
)
def test_adapters_of_joined_layers_are_merged(family: str, module: str, rows: int, tmp_path: Path) -> None:
    """As PEFT makes them for modules that are joined: in transformers, or in code that came with a checkpoint."""
    folder = build_family(tmp_path / "model", family)
    before = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith(f".1.{module}.weight"))
    pair = {"A": torch.randn(2, 48), "B": torch.randn(rows, 2)}
    stem = f"base_model.model.{name.removesuffix('.weight')}"
    adapter = {f"{stem}.lora_{one}.weight": value for one, value in pair.items()}
    save_file(adapter, folder / "adapter_model.safetensors", {"format": "pt"})
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": [module]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    got = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    (folder / "adapter_config.json").unlink()
    tensors[name] = tensors[name] + pair["B"] @ pair["A"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    torch.testing.assert_close(got, SentenceTransformer(folder, device="cpu").encode(TEXTS))
    assert abs(got - before).max() > 1e-2


def test_the_first_layer_of_modern_bert_is_kept(tmp_path: Path) -> None:
    model = SentenceTransformer(build_family(tmp_path / "model", "modernbert"), device="cpu")
    encoder: Any = model.transformer.encoder
    encoder.layers = torch.nn.ModuleList([encoder.layers[layer] for layer in (1, 2)])
    with pytest.raises(ConfigError, match="without its first layer, which alone has no normalization before attention"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_int8(tmp_path: Path) -> None:
    """The sizes are those that the C++ takes; the texts are longer than windows."""
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96, "local_attention": 16}
    folder = build_family(tmp_path / "model", "modernbert", **sizes)
    exact = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    small = SentenceTransformer(folder, device="cpu", dtype="int8").encode(TEXTS)
    assert (exact * small).sum(1).min() > 0.99


def test_the_documentation_lists_every_native_type() -> None:
    rows = [line for line in (ROOT / "docs" / "families.md").read_text().splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])} - {"model_type"}
    known = listed | transformers_types()  # which is without the newest of them in an older transformers
    assert listed == {name for name in known if architecture_of(name) is not None}


def transformers_types() -> set[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return set(CONFIG_MAPPING_NAMES)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_texts_without_tokens_have_an_embedding_of_their_own(mode: str) -> None:
    counts = torch.tensor([2, 0, 1, 0])
    tokens = torch.tensor([[1.0, -2.0], [3.0, 4.0], [5.0, 6.0]])
    place = torch.tensor([1, 2, 1])
    pooled = POOLING_MODES[mode](tokens, torch.tensor([0, 0, 2]), place, counts)
    assert torch.equal(pooled[1], torch.zeros(2))
    assert torch.equal(pooled[3], torch.zeros(2))
    assert torch.equal(pooled[2], tokens[2])
    none = POOLING_MODES[mode](tokens[:0], place[:0], place[:0], counts[1:2])
    assert torch.equal(none[0], torch.zeros(2))


def test_fresh_normalizations_change_no_length() -> None:
    for offset in (0.0, 1.0):
        config = encoder_config({**(GEMMA3 if offset else QWEN3), "head_dim": 16})
        norm = make_norm(config)
        x = torch.randn(3, 32)
        torch.testing.assert_close(norm(x).square().mean(1), torch.ones(3), atol=1e-3, rtol=0)
