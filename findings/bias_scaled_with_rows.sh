#!/usr/bin/env bash
# ONNX Runtime 1.31.1, onnx 1.23.2, NumPy 2.4.6, Python 3.11, on a CPU.
#
# In a graph of standard operators, MatMulInteger, Cast, Mul by (scales of rows times scales of columns) and Add of a
# bias are fused by ONNX Runtime into one operator of its own. It adds the bias before the scales of the rows are
# multiplied in, so that each row has another bias: results are wrong, without a word. Without a bias, without graph
# optimizations, or with the two scales multiplied in one after the other, they are right. Whoever quantizes activations
# row by row meets this.
#
# Output seen:
#   largest difference from NumPy
#   with a bias of 3: 3.0
#   with a bias of 3, not optimized: 0.0
#   without a bias: 0.0
#   with a bias of 3, one scale after the other: 0.0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
venv/bin/python - <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
a = rng.integers(0, 255, (4, 16)).astype(np.uint8)
weights = rng.integers(-127, 127, (16, 8)).astype(np.int8)
rows = np.array([[0.001], [0.002], [0.003], [0.004]], np.float32)
columns = rng.random(8).astype(np.float32) / 100
exact = ((a.astype(np.int32) - 128) @ weights.astype(np.int32)) * rows * columns


def difference(*, bias: bool, optimized: bool = True, together: bool = True) -> float:
    """Largest difference from NumPy; `together`: the scales are multiplied with each other first."""
    nodes = [
        helper.make_node("MatMulInteger", ["a", "weights", "zero"], ["product"]),
        helper.make_node("Cast", ["product"], ["float"], to=TensorProto.FLOAT),
    ]
    if together:
        nodes.append(helper.make_node("Mul", ["rows", "columns"], ["scales"]))
        nodes.append(helper.make_node("Mul", ["float", "scales"], ["scaled"]))
    else:
        nodes.append(helper.make_node("Mul", ["float", "rows"], ["by_row"]))
        nodes.append(helper.make_node("Mul", ["by_row", "columns"], ["scaled"]))
    last = ("Add", ["scaled", "bias"]) if bias else ("Identity", ["scaled"])
    nodes.append(helper.make_node(*last, ["out"]))
    constants = {"weights": weights, "zero": np.array(128, np.uint8), "columns": columns}
    if bias:
        constants["bias"] = np.full(8, 3, np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("a", TensorProto.UINT8, ["n", 16]),
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 1]),
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    got = session.run(None, {"a": a, "rows": rows})[0]
    return float(np.abs(got - exact - (3 if bias else 0)).max())


seen = {
    "with a bias of 3": difference(bias=True),
    "with a bias of 3, not optimized": difference(bias=True, optimized=False),
    "without a bias": difference(bias=False),
    "with a bias of 3, one scale after the other": difference(bias=True, together=False),
}
print("largest difference from NumPy")
for name, found in seen.items():
    print(f"{name}: {found:.1f}")
wrong = [found > 1 for found in seen.values()]
sys.exit(wrong != [True, False, False, False])
PY
