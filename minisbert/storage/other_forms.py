"""Forms of models that are not read here, so that an error can name what lies in a folder and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import shown
from .files import is_file
from .lora import ADAPTER_FILES, adapter_base

_ORIGINAL = "load the model that it was made from"
_CONVERT = "convert it with transformers 4: from_pretrained(folder, {option}=True).save_pretrained(another)"
# Files, the form of the model, what to do. Files of one form are listed together.
_FORMS = (
    (("*.onnx", "onnx/*.onnx"), "an ONNX model", _ORIGINAL),
    (("*.gguf",), "a GGUF model of llama.cpp", _ORIGINAL),
    (("openvino/*.xml", "openvino_*.xml"), "an OpenVINO model", _ORIGINAL),
    (("tf_model.h5", "tf_model*.h5"), "TensorFlow weights", _CONVERT.format(option="from_tf")),
    (("flax_model*.msgpack",), "Flax weights", _CONVERT.format(option="from_flax")),
    (("*.mlpackage", "coreml/*.mlpackage"), "a Core ML model", _ORIGINAL),
    (("rust_model.ot",), "weights of rust-bert", _ORIGINAL),
    (("*.tflite",), "a TensorFlow Lite model", _ORIGINAL),
    (("model.bin",), "a CTranslate2 model", _ORIGINAL),
)


def other_form(folder: Path) -> str | None:
    """Describe what lies in a folder that holds no weights of its own: "only ...; expected ...: ..."; None if nothing.

    Raises:
        ModelError: an adapter's configuration cannot be read.
    """
    base = adapter_base(folder)
    if base is not None:
        names = [name for name in ADAPTER_FILES if is_file(folder / name)]
        return (
            f"only an adapter ({', '.join(names) or 'without its weights'}) of {base}; expected the weights of that "
            f"model too: load that model once, put its files beside the adapter, or merge the two with PEFT's "
            f"merge_and_unload"
        )
    for patterns, form, advice in _FORMS:
        files = [path for pattern in patterns for path in folder.glob(pattern)]
        if files:
            name = min(files).relative_to(folder)
            return f"only {form} ({name}); expected model.safetensors or pytorch_model.bin: {advice}"
    return None


def quantized_by(config: dict[str, Any]) -> str | None:
    """Name of the method that quantized the weights, if config.json names one."""
    if isinstance(settings := config.get("quantization_config"), dict):
        bits = next((f"{bits} bits" for bits in (4, 8) if settings.get(f"load_in_{bits}bit")), settings.get("bits"))
        return f"{settings.get('quant_method') or 'an unknown method'}{f', {bits}' if bits else ''}"[:80]
    if settings is not None:
        return f"quantization_config={shown(settings)}"
    if isinstance(settings := config.get("quantization"), dict):
        return f"MLX, {settings.get('bits')} bits"[:80]
    return None
