"""A BERT-family model of minisbert as an ONNX graph for ONNX Runtime: encoder, mean pooling and normalization.

The graph is written in ONNX Runtime's own fused operators (`com.microsoft`), which its optimizer would otherwise have
to find in a graph of small ones. It runs as fast as what that makes of torch's own export.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisbert import SentenceTransformer

_FUSED = "com.microsoft"


def export(model: SentenceTransformer, path: Path) -> Path:
    """Write the graph: input_ids and attention_mask, int32 (texts, length), to embeddings, float32 (texts, dim).

    The model has learned positions and no more than one type of token per text; its modules are the encoder, mean
    pooling and normalization.
    """
    import onnx

    graph = _Graph()
    encoder = model.transformer.auto_model
    weights = {name: tensor.detach().float().numpy() for name, tensor in encoder.state_dict().items()}
    config: Any = encoder.config
    hidden = _embeddings(graph, weights, config)
    for layer in range(config.num_hidden_layers):
        hidden = _layer(graph, weights, config, hidden, layer)
    _pooled(graph, hidden)
    ids, mask = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT32, ["texts", "length"])
        for name in ("input_ids", "attention_mask")
    )
    output = onnx.helper.make_tensor_value_info("embeddings", onnx.TensorProto.FLOAT, ["texts", config.hidden_size])
    made = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "encoder", [ids, mask], [output], graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(_FUSED, 1)],
    )
    made.ir_version = 10  # what every ONNX Runtime since 1.18 reads
    onnx.save(made, path)
    return path


class _Graph:
    """Nodes and constants, with names made up as they come."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: NDArray[Any]) -> str:
        """Keep an array, and return its name."""
        import onnx

        name = f"constant_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(
        self,
        kind: str,
        *inputs: str,
        fused: bool = False,
        output: str | None = None,
        outputs: int = 1,
        **attributes: Any,
    ) -> str:
        """Add an operation, and return the name of its first output."""
        import onnx

        name = output or f"value_{len(self.nodes)}"
        names = [name, *(f"{name}_{place}" for place in range(1, outputs))]
        domain = _FUSED if fused else ""
        self.nodes.append(onnx.helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return name


def _embeddings(graph: _Graph, weights: dict[str, NDArray[Any]], config: Any) -> str:
    positions = weights["embeddings.position.weight"][config.position_offset :]
    if "embeddings.token_type.weight" in weights:
        positions = positions + weights["embeddings.token_type.weight"][0]
    return graph.node(
        "EmbedLayerNormalization",
        "input_ids",
        "",
        graph.constant(weights["embeddings.word.weight"]),
        graph.constant(positions),
        "",
        graph.constant(weights["embeddings.norm.weight"]),
        graph.constant(weights["embeddings.norm.bias"]),
        fused=True,
        outputs=2,
        epsilon=config.layer_norm_eps,
    )


def _layer(graph: _Graph, weights: dict[str, NDArray[Any]], config: Any, hidden: str, layer: int) -> str:
    def part(name: str) -> NDArray[Any]:
        return weights[f"layers.{layer}.{name}"]

    def product(x: str, name: str) -> str:
        return graph.node("MatMul", x, graph.constant(part(f"{name}.weight").T))

    def added(x: str, residual: str, linear: str, norm: str) -> str:
        constants = (part(f"{norm}.weight"), part(f"{norm}.bias"), part(f"{linear}.bias"))
        return graph.node(
            "SkipLayerNormalization",
            x,
            residual,
            *map(graph.constant, constants),
            fused=True,
            epsilon=config.layer_norm_eps,
        )

    three = ("query", "key", "value")
    attended = graph.node(
        "Attention",
        hidden,
        graph.constant(np.concatenate([part(f"attention.{name}.weight").T for name in three], axis=1)),
        graph.constant(np.concatenate([part(f"attention.{name}.bias") for name in three])),
        "attention_mask",
        fused=True,
        num_heads=config.num_attention_heads,
    )
    hidden = added(product(attended, "attention.output"), hidden, "attention.output", "attention.norm")
    up = graph.node(
        "BiasGelu",
        product(hidden, "feed_forward.up"),
        graph.constant(part("feed_forward.up.bias")),
        fused=True,
    )
    return added(product(up, "feed_forward.down"), hidden, "feed_forward.down", "feed_forward.norm")


def _pooled(graph: _Graph, hidden: str) -> None:
    counted = graph.node("Cast", "attention_mask", to=1)  # float32
    weights = graph.node("Unsqueeze", counted, graph.constant(np.array([1])))  # (texts, 1, length)
    total = graph.node("Squeeze", graph.node("MatMul", weights, hidden), graph.constant(np.array([1])))
    count = graph.node("ReduceSum", counted, graph.constant(np.array([1])), keepdims=1)  # (texts, 1)
    mean = graph.node("Div", total, count)
    graph.node("LpNormalization", mean, output="embeddings", axis=-1, p=2)
