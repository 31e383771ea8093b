"""One encoder for other architectures, and operations that call every module that is not as built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from minisbert.kernels.cpu_ops import onednn
from tiny_models import build
from torch import Tensor, nn
from torch.nn.utils import parametrize

from minisbert import SentenceTransformer, kernels
from minisbert.kernels import AttentionSettings
from minisbert.model.embedding_model import DType
from minisbert.modules.architectures import EncoderConfig
from minisbert.modules.encoder import Encoder
from minisbert.packing import PackedBatch, pack
from minisbert.text import TokenizedTexts

LENGTHS = (1, 3, 9, 17, 17, 30)
SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


def batch_of(*lengths: int) -> PackedBatch:
    ids = np.random.default_rng(0).integers(3, 50, sum(lengths)).astype(np.int32)
    return pack(TokenizedTexts(ids, np.array(lengths, np.int64), 0))


def random_weights(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for weight in module.parameters():
        nn.init.normal_(weight, mean=0.2 if weight.dim() == 1 else 0, std=0.2)
    return module.eval()


def their_tokens(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Token embeddings of a model of transformers, text by text."""
    with torch.no_grad():
        texts = batch.input_ids.split(batch.lengths.tolist())
        return torch.cat([model(input_ids=text[None]).last_hidden_state[0] for text in texts])


def our_tokens(encoder: Encoder, batch: PackedBatch, mode: str) -> Tensor:
    with kernels.use(mode), torch.no_grad():  # type: ignore[arg-type]
        return encoder.eval()(batch)


def loaded(config: EncoderConfig, names: dict[str, str], theirs: dict[str, Tensor]) -> Encoder:
    """An encoder with the tensors of another library: our names to theirs, {} for the number of a layer."""
    encoder = Encoder(config)
    tensors = {}
    for ours, name in names.items():
        for layer in range(config.num_hidden_layers) if "{}" in ours else (0,):
            if (tensor := theirs.get(name.format(layer))) is not None:
                tensors[f"{ours.format(layer)}.weight"] = tensor
    encoder.load_state_dict(tensors)
    return encoder


@pytest.mark.parametrize("mode", ["auto", "reference"])
def test_modernbert_needs_a_configuration_only(mode: str) -> None:
    """Pre-norm, no biases, gated feed-forward, rotary positions, sliding windows."""
    transformers = pytest.importorskip("transformers")
    model = transformers.ModernBertModel(
        transformers.ModernBertConfig(
            **SIZES, num_hidden_layers=4, local_attention=6, pad_token_id=0, cls_token_id=1, sep_token_id=2
        )
    )
    theirs = dict(random_weights(model).state_dict())
    for layer in range(4):  # which has its products side by side
        parts = theirs[f"layers.{layer}.attn.Wqkv.weight"].chunk(3)
        theirs |= {f"{layer}.{name}": part for name, part in zip(("query", "key", "value"), parts, strict=True)}
        parts = theirs[f"layers.{layer}.mlp.Wi.weight"].chunk(2)
        theirs |= {f"{layer}.{name}": part for name, part in zip(("up", "gate"), parts, strict=True)}
    everywhere = AttentionSettings(2, rotary_base=160_000.0)
    nearby = AttentionSettings(2, rotary_base=10_000.0, window=3)
    config = EncoderConfig(
        **SIZES,
        num_hidden_layers=4,
        type_vocab_size=0,
        layer_norm_eps=1e-5,
        norm_first=True,
        biases=frozenset(),
        gated=True,
        attention=(everywhere, nearby, nearby, everywhere),
    )
    names = {
        "embeddings.word": "embeddings.tok_embeddings.weight",
        "embeddings.norm": "embeddings.norm.weight",
        "layers.{}.attention.query": "{}.query",
        "layers.{}.attention.key": "{}.key",
        "layers.{}.attention.value": "{}.value",
        "layers.{}.attention.output": "layers.{}.attn.Wo.weight",
        "layers.{}.attention.norm": "layers.{}.attn_norm.weight",
        "layers.{}.feed_forward.up": "{}.up",
        "layers.{}.feed_forward.gate": "{}.gate",
        "layers.{}.feed_forward.down": "layers.{}.mlp.Wo.weight",
        "layers.{}.feed_forward.norm": "layers.{}.mlp_norm.weight",
        "norm": "final_norm.weight",
    }
    theirs["layers.0.attn_norm.weight"] = torch.ones(32)
    encoder = loaded(config, names, theirs)
    encoder.layers[0].attention.norm = nn.Identity()  # type: ignore[union-attr]
    batch = batch_of(*LENGTHS)
    torch.testing.assert_close(our_tokens(encoder, batch, mode), their_tokens(model, batch), rtol=1e-4, atol=1e-5)


class HeadNorm(nn.Module):
    """Normalizes each head."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.unflatten(1, (-1, 16))).flatten(1)


@pytest.mark.parametrize("mode", ["auto", "reference"])
def test_qwen3_needs_a_configuration_only(mode: str) -> None:
    """RMSNorm, causal attention, groups of heads; queries and keys are normalized by modules in their places."""
    transformers = pytest.importorskip("transformers")
    sizes = {**SIZES, "num_attention_heads": 4, "hidden_size": 64}
    settings = {"head_dim": 16, "num_key_value_heads": 2, "num_hidden_layers": 2, "pad_token_id": 0}
    model = transformers.Qwen3Model(transformers.Qwen3Config(**sizes, **settings, rms_norm_eps=1e-6))
    random_weights(model)
    config = EncoderConfig(
        **sizes,
        num_hidden_layers=2,
        type_vocab_size=0,
        hidden_act="silu",
        layer_norm_eps=1e-6,
        norm_first=True,
        rms_norm=True,
        biases=frozenset(),
        gated=True,
        attention=(AttentionSettings(4, key_value_heads=2, causal=True, rotary_base=10_000.0),) * 2,
    )
    names = {
        "embeddings.word": "embed_tokens.weight",
        "layers.{}.attention.query": "layers.{}.self_attn.q_proj.weight",
        "layers.{}.attention.key": "layers.{}.self_attn.k_proj.weight",
        "layers.{}.attention.value": "layers.{}.self_attn.v_proj.weight",
        "layers.{}.attention.output": "layers.{}.self_attn.o_proj.weight",
        "layers.{}.attention.norm": "layers.{}.input_layernorm.weight",
        "layers.{}.feed_forward.up": "layers.{}.mlp.gate_proj.weight",
        "layers.{}.feed_forward.gate": "layers.{}.mlp.up_proj.weight",
        "layers.{}.feed_forward.down": "layers.{}.mlp.down_proj.weight",
        "layers.{}.feed_forward.norm": "layers.{}.post_attention_layernorm.weight",
        "norm": "norm.weight",
        "embeddings.norm": "",
    }
    theirs = {**model.state_dict(), "": torch.ones(64)}
    encoder = loaded(config, names, theirs)
    encoder.embeddings.norm = nn.Identity()
    for ours, layer in zip(encoder.layers, model.layers, strict=True):
        attention, self_attention = ours.attention, layer.self_attn  # type: ignore[union-attr]
        attention.query = nn.Sequential(attention.query, HeadNorm(self_attention.q_norm))
        attention.key = nn.Sequential(attention.key, HeadNorm(self_attention.k_norm))
    batch = batch_of(*LENGTHS)
    torch.testing.assert_close(our_tokens(encoder, batch, mode), their_tokens(model, batch), rtol=1e-4, atol=1e-5)


class Adapter(nn.Module):
    """A low-rank addition to a linear layer."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.down = base, nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


class Scaled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 1.5


def in_every_layer(change: Callable[[nn.Module, nn.Module], object]) -> Callable[[Encoder], None]:
    def changed(encoder: Encoder) -> None:
        for layer in encoder.layers:
            change(layer.attention, layer.feed_forward)  # type: ignore[arg-type]

    return changed


def doubled(part: nn.Module, given: object, made: Tensor) -> Tensor:
    return made * 2


CHANGES: dict[str, Callable[[Encoder], None]] = {
    "adapters": in_every_layer(
        lambda attention, feed: [
            setattr(part, name, Adapter(getattr(part, name)))
            for part, name in ((attention, "query"), (attention, "value"), (attention, "output"), (feed, "up"))
        ]
    ),
    "an adapter of what is added": in_every_layer(lambda _, feed: setattr(feed, "down", Adapter(feed.down))),
    "a hook on a product": in_every_layer(lambda attention, _: attention.key.register_forward_hook(doubled)),
    "a hook on a norm": in_every_layer(lambda _, feed: feed.norm.register_forward_hook(doubled)),
    "a hook on a part": in_every_layer(lambda attention, _: attention.register_forward_hook(doubled)),
    "a hook on the words": lambda encoder: encoder.embeddings.word.register_forward_hook(doubled),
    "a hook on gradients": in_every_layer(
        lambda attention, _: attention.output.register_full_backward_hook(
            lambda part, given, made: tuple(grad * 2 for grad in given)
        )
    ),
    "a parametrization": in_every_layer(
        lambda attention, _: parametrize.register_parametrization(attention.output, "weight", Scaled())
    ),
    "a method": in_every_layer(lambda _, feed: setattr(feed.up, "forward", lambda x: -nn.Linear.forward(feed.up, x))),
    "another norm": in_every_layer(lambda attention, _: setattr(attention, "norm", nn.RMSNorm(32))),
    "no bias": in_every_layer(lambda attention, _: setattr(attention.query, "bias", None)),
    "another activation": in_every_layer(lambda _, feed: setattr(feed, "activation", torch.tanh)),
}


@pytest.mark.parametrize("kernels_of", ["without_native", "with_native"])
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_as_built_is_called(
    change: str,
    training: bool,
    kernels_of: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every implementation gives what the definitions give, gradients included, and the change shows."""
    request.getfixturevalue(kernels_of)
    monkeypatch.setattr(onednn, "available", lambda: True)
    config = EncoderConfig(**SIZES, num_hidden_layers=2, hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    encoder, batch = Encoder(config), batch_of(*LENGTHS)
    random_weights(encoder)

    def results(mode: str) -> list[Tensor]:
        if not training:
            return [our_tokens(encoder, batch, mode)]
        encoder.train().zero_grad()
        with kernels.use(mode):  # type: ignore[arg-type]
            hidden = encoder(batch)
            (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
        return [hidden.detach(), *(weight.grad for weight in encoder.parameters() if weight.grad is not None)]

    before = results("auto")
    CHANGES[change](encoder)
    after = results("auto")
    same = all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(before, after, strict=False))
    assert same == (change == "a hook on gradients" and not training)
    for got, expected in zip(after, results("reference"), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_loaded_weights_are_copied_and_side_by_side(tmp_path: Path, dtype: DType | None) -> None:
    """What is written into their file later changes nothing, and products read them from aligned addresses."""
    folder = build(tmp_path / "bert", "bert")
    model = SentenceTransformer(folder, device="cpu", dtype=dtype)
    tensors = {**model.state_dict(), **model.transformer.extra_tensors}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    file = folder / "model.safetensors"
    with file.open("r+b") as opened:
        opened.write(bytes(file.stat().st_size))
    assert {name for name, tensor in tensors.items() if not torch.equal(tensor, before[name])} == set()
    for layer in model.transformer.auto_model.layers:
        query, key, value = (getattr(layer.attention, name).weight for name in ("query", "key", "value"))
        assert (key.data_ptr(), value.data_ptr()) == (query.data_ptr() + query.nbytes, key.data_ptr() + key.nbytes)
        linears = (query, layer.attention.output.weight, layer.feed_forward.up.weight, layer.feed_forward.down.weight)
        assert all(weight.data_ptr() % 64 == 0 for weight in linears)
