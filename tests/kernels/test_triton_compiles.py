"""Every specialisation of the Triton kernels goes through the compiler for two kinds of GPU, without spilling."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import triton_common
from places import ROOT

triton = pytest.importorskip("triton")
if triton_common.INTERPRETED:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from minisbert.kernels.triton_ops.launch import FUSION  # noqa: E402

from minisbert.kernels import triton_ops  # noqa: E402

pytestmark = pytest.mark.compile
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}
SPILLED = {80: 512, 90: 0}  # bytes of a thread; block sizes are chosen for the second


def all_variants() -> list[Any]:
    modules = [
        importlib.import_module(f"minisbert.kernels.triton_ops.{found.name}")
        for found in pkgutil.iter_modules(triton_ops.__path__)
    ]
    return [variant for module in modules if hasattr(module, "variants") for variant in module.variants()]


def compiled(variant: Any, capability: int) -> Any:
    """The variant for a device of such a capability, pointers aligned as torch aligns them."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = variant.kernel.arg_names
    signature = {name: "constexpr" if name in variant.constants else variant.signature[name] for name in names}
    aligned = {
        (place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if signature[name].startswith("*")
    }
    source = ASTSource(variant.kernel, signature, dict(variant.constants), aligned)
    options = {"num_warps": variant.warps, "num_stages": variant.stages, **FUSION}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(kernel: Any, folder: Path) -> dict[str, int]:
    """Registers of a thread, and its bytes of local memory (what is spilled)."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    said = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", said)
    assert found, said
    return {"registers": int(found[1]), "local": int(found[2]) + int(found[3]), "shared": kernel.metadata.shared}


@pytest.mark.parametrize("capability", SHARED_MEMORY)
@pytest.mark.parametrize("variant", all_variants(), ids=lambda variant: variant.name)
def test_compiles_without_spills(variant: Any, capability: int, tmp_path: Path) -> None:
    used = resources(compiled(variant, capability), tmp_path)
    assert used["local"] <= SPILLED[capability], used
    assert used["shared"] <= SHARED_MEMORY[capability], used
    assert used["registers"] <= 255


def test_every_module_is_covered() -> None:
    folder = ROOT / "kernels" / "triton_ops"
    kernels = {path.stem for path in folder.glob("*.py") if "triton.jit(" in path.read_text()}
    covered = {variant.kernel.fn.__module__.rpartition(".")[2] for variant in all_variants()}
    assert kernels - {"launch"} <= covered
