"""Other ways to run the same model on a CPU, each in its best setting: the extra `bench-peers` installs them.

All of them get texts tokenized once, sorted by tokens, and padded to the longest of each batch, as ONNX Runtime does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minisbert import SentenceTransformer
from minisbert.export import to_onnx

Ids: TypeAlias = NDArray[np.int32]
Run: TypeAlias = Callable[[Ids, Ids], NDArray[np.float32]]  # ids and mask, (texts, length), to embeddings
CALIBRATION = 250  # texts of the calibration of OpenVINO's int8, more than the 42 sentences of minisbert's


class Padded:
    """A function of padded batches, as one of texts."""

    def __init__(self, model: SentenceTransformer, run: Run) -> None:
        self._tokenizer, self._dim, self._run = model.transformer.tokenizer, model.transformer.embedding_dimension, run

    def __call__(self, texts: list[str], batch_size: int) -> NDArray[np.float32]:
        """Texts to (texts, dim)."""
        tokens = self._tokenizer(texts)
        order = np.argsort(-tokens.lengths, kind="stable")
        embeddings = np.empty((len(texts), self._dim), np.float32)
        for start in range(0, len(texts), batch_size):
            rows = order[start : start + batch_size]
            mask = (np.arange(tokens.lengths[rows[0]]) < tokens.lengths[rows][:, None]).astype(np.int32)
            ids = np.zeros_like(mask)
            ids[mask == 1] = np.concatenate(
                [tokens.ids[tokens.offsets[row] : tokens.offsets[row] + tokens.lengths[row]] for row in rows]
            )
            embeddings[rows] = self._run(ids, mask)
        return embeddings


def onnx_runtime(model: SentenceTransformer, folder: Path, threads: int, dtype: str) -> Run:
    """ONNX Runtime with its own fused operators; int8 weights per channel, inputs quantized as they come."""
    import onnxruntime
    from onnxruntime.transformers.optimizer import optimize_model

    with tempfile.TemporaryDirectory() as place:
        graph = to_onnx(model, Path(place) / "model.onnx").path
        config: Any = model.transformer.auto_model.config
        sizes = {"num_heads": config.num_attention_heads, "hidden_size": config.hidden_size}
        # It fuses attention, which a session does not find by itself; texts are padded on the right, as it expects.
        optimize_model(str(graph), model_type="bert", opt_level=0, **sizes).save_model_to_file(str(graph))
        if dtype == "int8":
            import onnx
            from onnxruntime.quantization import QuantType, quantize_dynamic

            kinds = ["MatMul", "Attention"]  # not the embedding tables, whose rows would share one scale
            small = graph.with_name("int8.onnx")
            types = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # of what fused operators give
            quantize_dynamic(
                graph,
                small,
                weight_type=QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=kinds,
                extra_options=types,
            )
            graph = small
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Its threads wait actively after a run, which would take time from whoever is measured next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}

    def run(ids: Ids, mask: Ids) -> NDArray[np.float32]:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        taken = {name: value.astype(np.int64) for name, value in given.items() if name in names}
        embeddings: NDArray[np.float32] = session.run(["sentence_embedding"], taken)[0]
        return embeddings

    return run


def openvino(model: SentenceTransformer, folder: Path, threads: int, dtype: str) -> Run:
    """OpenVINO over the encoder of transformers, converted by itself; int8 by NNCF, calibrated on packaged answers."""
    import openvino as ov
    import torch
    from transformers import AutoModel

    class Embedder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = AutoModel.from_pretrained(folder, attn_implementation="eager")

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            types = torch.zeros_like(input_ids)
            tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=types)[0]
            mask = attention_mask[:, :, None].float()
            return torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9), dim=1)

    example = {name: torch.ones(2, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    shapes = [ov.PartialShape([-1, -1])] * 2
    converted = ov.convert_model(Embedder().eval(), example_input=example, input=shapes)
    if dtype == "int8":
        import nncf

        texts = _calibration()
        tokens = model.transformer.tokenizer(texts)

        def inputs(row: int) -> dict[str, NDArray[np.int64]]:
            ids = tokens.ids[tokens.offsets[row] : tokens.offsets[row] + tokens.lengths[row]].astype(np.int64)[None]
            return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

        data = nncf.Dataset(range(len(texts)), inputs)
        converted = nncf.quantize(
            converted, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=CALIBRATION, fast_bias_correction=True
        )
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",  # bf16 is its default where there is
    }
    compiled = ov.Core().compile_model(converted, "CPU", settings)
    request = compiled.create_infer_request()

    def run(ids: Ids, mask: Ids) -> NDArray[np.float32]:
        named = {"input_ids": ids.astype(np.int64), "attention_mask": mask.astype(np.int64)}
        return np.array(request.infer(named)[compiled.output(0)])

    return run


def ctranslate2(model: SentenceTransformer, folder: Path, threads: int, dtype: str) -> Run:
    """CTranslate2's encoder, with its own conversion, mean pooling and normalization in NumPy."""
    import ctranslate2

    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "model"
        quantization = "int8" if dtype == "int8" else None
        ctranslate2.converters.TransformersConverter(str(folder)).convert(str(made), quantization=quantization)
        encoder = ctranslate2.Encoder(
            str(made), device="cpu", compute_type=dtype, intra_threads=threads, inter_threads=1
        )

    def run(ids: Ids, mask: Ids) -> NDArray[np.float32]:
        lengths = mask.sum(1)
        texts = [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
        tokens = np.array(encoder.forward_batch(texts).last_hidden_state)
        sums = (tokens * mask[:, : tokens.shape[1], None]).sum(1) / lengths[:, None]
        return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), np.float32)

    return run


PEERS: dict[str, tuple[Callable[[SentenceTransformer, Path, int, str], Run], str]] = {
    "ONNX Runtime": (onnx_runtime, "float32"),
    "ONNX Runtime int8": (onnx_runtime, "int8"),
    "OpenVINO fp32": (openvino, "float32"),
    "OpenVINO bf16": (openvino, "bfloat16"),
    "OpenVINO int8": (openvino, "int8"),
    "CTranslate2 fp32": (ctranslate2, "float32"),
    "CTranslate2 int8": (ctranslate2, "int8"),
}


def make(name: str, model: SentenceTransformer, folder: Path, threads: int) -> Callable[[list[str], int], NDArray[Any]]:
    """A peer of the model in a folder as a function of texts and a batch size."""
    runner, dtype = PEERS[name]
    return Padded(model, runner(model, folder, threads, dtype))


def _calibration() -> list[str]:
    from minisbert.data.packaged import GRADED_ANSWERS_TRAIN
    from minisbert.data.roles import training_rows

    texts = [text for column in training_rows(GRADED_ANSWERS_TRAIN).texts.values() for text in column]
    return sorted(set(texts))[:CALIBRATION]
