"""Every specialization of the Triton kernels goes through the compiler for two kinds of GPU, without spilling.

The operations are called on CPU tensors; their launches are recorded instead of run, and compiled.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from places import ROOT
from torch import Tensor

pytest.importorskip("triton")

import triton
import triton_common
from minisbert.kernels.triton_ops import attention, contrastive, embedding, gated, gelu, launch, norm, pooling, rotary
from triton.runtime import JITFunction

from minisbert.packing import PackedBatch, Run

if triton_common.INTERPRETED:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

pytestmark = pytest.mark.compile
FOLDER = ROOT / "kernels" / "triton_ops"
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}
SPILLED = {80: 512, 90: 0}  # bytes of a thread; block sizes are chosen for the second
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int64: "i64", torch.int32: "i32"}
FLOAT, HALF = torch.float32, torch.bfloat16


class Launch(NamedTuple):
    """A kernel with the types of its arguments and the values of its constants."""

    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        types = sorted({kind[1:] for kind in self.signature.values() if kind[0] == "*"} - {"i64", "i32"})
        constants = " ".join(f"{name}={value}" for name, value in self.constants.items())
        warps, stages = self.options["num_warps"], self.options["num_stages"]
        return f"{self.kernel.__name__} {'/'.join(types)} {constants} warps={warps} stages={stages}"


def launches(calls: Iterator[Callable[[], Any]]) -> list[Launch]:
    """The different launches of some calls."""
    found: dict[str, Launch] = {}

    def run(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **settings: Any) -> None:
        options = {name: settings.pop(name) for name in ("num_warps", "num_stages", "enable_fp_fusion")}
        signature, constants = {}, settings
        for name, value in zip(kernel.arg_names, arguments, strict=False):
            if value is None:
                constants[name] = None
            elif isinstance(value, Tensor):
                signature[name] = f"*{TYPES[value.dtype]}"
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32"
        made = Launch(kernel, signature, constants, options)
        found[made.name] = made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "INTERPRETED", True)  # to take tensors of the CPU
        patch.setattr(JITFunction, "run", run)
        for call in calls:
            call()
    return list(found.values())


def differentiated(operation: Callable[..., Any], *values: Tensor | None) -> None:
    outputs = operation(*(value if value is None else value.requires_grad_(True) for value in values))
    torch.stack([output.float().sum() for output in torch.utils._pytree.tree_leaves(outputs)]).sum().backward()


def batch_of(longest: int) -> PackedBatch:
    offsets = torch.tensor([0, 2], dtype=torch.int32)
    numbers = torch.zeros(2, dtype=torch.int64)
    return PackedBatch(numbers, numbers, numbers, numbers[:1], offsets, (Run(0, 1, longest),), numbers[:1])


def calls() -> Iterator[Callable[[], Any]]:
    """Each operation at MiniLM's sizes and some larger ones, with the least and with the most of its arguments."""

    def matrix(*shape: int, dtype: torch.dtype = FLOAT) -> Tensor:
        return torch.zeros(*shape, dtype=dtype)

    for longest in (16, 32, 64, 128, 512):
        for head, dtype in ((32, HALF), (64, HALF), (32, FLOAT)):
            qkv, batch = matrix(2, 36 * head, dtype=dtype), batch_of(longest)
            attend = partial(attention.attention_qkv, batch=batch, heads=12, dropout=0.1)
            yield partial(differentiated, attend, qkv)
        yield partial(attention.attention_qkv, matrix(2, 36 * 32, dtype=HALF), batch_of(longest), heads=12)
    for dim, dtype in ((384, HALF), (384, FLOAT), (768, HALF)):
        yield partial(differentiated, contrastive.contrastive, matrix(2, dim, dtype=dtype), matrix(3, dim, dtype=dtype))
        yield partial(differentiated, partial(pooling.mean_pool, batch=batch_of(16)), matrix(2, dim, dtype=dtype))
    ids = torch.zeros(2, dtype=torch.int64)
    for dtype, more in ((FLOAT, False), (FLOAT, True), (HALF, False)):
        embed = partial(embedding.embed_norm, ids, ids, ids if more else None, eps=1e-12, dropout=0.1 * more)
        tables = [matrix(2, 384, dtype=dtype) for _ in range(3)]
        yield partial(differentiated, embed, *tables, *(matrix(384, dtype=dtype) for _ in range(2)))
    for dtype, bias in ((HALF, matrix(1536)), (HALF, None), (FLOAT, matrix(1536))):
        yield partial(differentiated, gelu.bias_gelu, matrix(2, 1536, dtype=dtype), bias)
    for dtype, activation in ((HALF, "gelu"), (HALF, "gelu_tanh"), (HALF, "silu"), (FLOAT, "gelu"), (FLOAT, "relu")):
        unit = partial(gated.gated, activation=activation)
        yield partial(differentiated, unit, matrix(2, 1152, dtype=dtype), matrix(2, 1152, dtype=dtype))
    for size, dtype in ((64, HALF), (128, HALF), (256, HALF), (64, FLOAT)):
        turn = partial(rotary.rotate, positions=ids, size=size, base=1e4)
        yield partial(differentiated, turn, matrix(2, 3 * size, dtype=dtype))
    for dim, dtype, stream in ((384, HALF, HALF), (384, HALF, FLOAT), (384, FLOAT, FLOAT), (768, HALF, FLOAT)):
        for more in (False, True):
            x, residual = matrix(2, dim, dtype=dtype), matrix(2, dim, dtype=stream)
            add_norm = partial(norm.add_norm, eps=1e-12, dropout=0.1 * more)
            if more:
                bias = matrix(dim).requires_grad_(True)
                add_norm = partial(add_norm, x_bias=bias)
            yield partial(differentiated, add_norm, x, residual, matrix(dim), matrix(dim))


LAUNCHES = launches(calls())


def compiled(launch: Launch, capability: int) -> Any:
    """The kernel for a device of such a capability, pointers aligned as torch aligns them."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = launch.kernel.arg_names
    signature = {name: launch.signature.get(name, "constexpr") for name in names}
    aligned = {
        (index,): [["tt.divisibility", 16]] for index, name in enumerate(names) if signature[name].startswith("*")
    }
    source = ASTSource(launch.kernel, signature, launch.constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)


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
@pytest.mark.parametrize("launch", LAUNCHES, ids=lambda launch: launch.name)
def test_compiles_without_spills(launch: Launch, capability: int, tmp_path: Path) -> None:
    used = resources(compiled(launch, capability), tmp_path)
    assert used["local"] <= SPILLED[capability], used
    assert used["shared"] <= SHARED_MEMORY[capability], used
    assert used["registers"] <= 255


def test_every_module_is_covered() -> None:
    modules = {path.stem for path in FOLDER.glob("*.py") if "triton.jit(" in path.read_text()}
    covered = {launch.kernel.fn.__module__.rpartition(".")[2] for launch in LAUNCHES}
    assert modules - {"launch"} <= covered
