"""Models as files of other runtimes."""

from .to_onnx import Exported, to_onnx

__all__ = ["Exported", "to_onnx"]
