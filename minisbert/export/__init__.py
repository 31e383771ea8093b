"""Models as files of other runtimes."""

from .to_onnx import Exported, to_onnx
from .to_openvino import to_openvino

__all__ = ["Exported", "to_onnx", "to_openvino"]
