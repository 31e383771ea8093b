#!/usr/bin/env bash
# ONNX Runtime 1.31.1, onnx 1.22.0, Python 3.11.
#
# The dynamic quantizer of ONNX Runtime fails on graphs with ONNX Runtime's own fused operators (com.microsoft), which
# its optimizer itself writes: ONNX's shape inference does not know them, so the type of what they give is unknown, and
# a product of it cannot be quantized. The option DefaultTensorType, which no message but the last lines of the error
# names, makes it work.
#
# Output seen:
#   as it is: RuntimeError
#   with DefaultTensorType: MatMulIntegerToFloat or MatMulInteger in the graph: True
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.31.1 onnx==1.22.0
venv/bin/python -W ignore - <<'PY'
import logging
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

logging.disable()
weight = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
nodes = [
    helper.make_node("Gelu", ["x"], ["active"], domain="com.microsoft"),
    helper.make_node("MatMul", ["active", "weight"], ["product"]),
    helper.make_node("Relu", ["product"], ["y"]),
]
graph = helper.make_graph(
    nodes,
    "fused",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 8])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 8])],
    [numpy_helper.from_array(weight, "weight")],
)
opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
model = helper.make_model(graph, opset_imports=opsets)
model.ir_version = 10
onnx.save(model, "model.onnx")


def outcome(**options: object) -> str:
    try:
        quantize_dynamic("model.onnx", "int8.onnx", weight_type=QuantType.QInt8, **options)
    except Exception as error:
        return type(error).__name__
    kinds = {node.op_type for node in onnx.load("int8.onnx").graph.node}
    return f"MatMulIntegerToFloat or MatMulInteger in the graph: {bool(kinds & {'MatMulIntegerToFloat', 'MatMulInteger'})}"


seen = {
    "as it is": outcome(),
    "with DefaultTensorType": outcome(extra_options={"DefaultTensorType": TensorProto.FLOAT}),
}
for name, found in seen.items():
    print(f"{name}: {found}")
expected = ["RuntimeError", "MatMulIntegerToFloat or MatMulInteger in the graph: True"]
sys.exit(list(seen.values()) != expected)
PY
