"""Devices, packages, processes and logging: the surroundings of a run."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, metadata, version
from typing import Any

import torch
from torch import Tensor, distributed
from tqdm import tqdm

from ...errors import ConfigError

logger = logging.getLogger(__name__)
_NOTICE = 25  # a level of its own between INFO and WARNING


# ---- devices and processes ------------------------------------------------------------------------------------------


def get_device_name() -> str:
    """Name of the device that models run on by default: "cuda:0", "mps", "npu", "xpu" or "cpu"."""
    if torch.cuda.is_available():
        rank = get_rank()
        own = rank if torch.cuda.device_count() > rank else 0
        return f"cuda:{int(os.environ.get('LOCAL_RANK', own))}"
    others = {"mps": torch.backends.mps, "npu": getattr(torch, "npu", None), "xpu": getattr(torch, "xpu", None)}
    return next((name for name, kind in others.items() if kind is not None and kind.is_available()), "cpu")


def is_dist_initialized() -> bool:
    """Return True if this is one of several processes of torch.distributed."""
    return distributed.is_available() and distributed.is_initialized()


def get_rank() -> int:
    """Number of this process, 0 if it is alone."""
    return distributed.get_rank() if is_dist_initialized() else 0


def get_world_size() -> int:
    """Number of processes, 1 if this is alone."""
    return distributed.get_world_size() if is_dist_initialized() else 1


def all_gather(tensor: Tensor, with_grad: bool = False) -> Tensor:
    """Return the tensors of all processes in one, (processes * n, ...); that of this process if it is alone.

    Args:
        tensor: (n, ...), of the same shape in each process. Its own part keeps its gradients.
        with_grad: the other parts keep theirs too.
    """
    if not is_dist_initialized():
        logger.info("there is only this process to gather from: its own tensor is returned")
        return tensor
    if with_grad:
        from torch.distributed.nn.functional import all_gather as gather

        return torch.cat(list(gather(tensor)))  # type: ignore[no-untyped-call]
    parts = [torch.zeros_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, tensor)
    parts[distributed.get_rank()] = tensor
    return torch.cat(parts)


def all_gather_with_grad(tensor: Tensor) -> Tensor:
    """Call `all_gather` so that all parts keep their gradients."""
    return all_gather(tensor, with_grad=True)


def all_gather_padded(tensor: Tensor, mask: Tensor, with_grad: bool = False) -> tuple[Tensor, Tensor]:
    """Gather token embeddings (n, tokens, d) and their mask (n, tokens), padded to the most tokens of any process."""
    if is_dist_initialized():
        most = torch.tensor(tensor.shape[1], device=tensor.device)
        distributed.all_reduce(most, op=distributed.ReduceOp.MAX)
        missing = int(most) - tensor.shape[1]
        tensor = torch.nn.functional.pad(tensor, (0, 0, 0, missing))
        mask = torch.nn.functional.pad(mask, (0, missing))
    return all_gather(tensor, with_grad=with_grad), all_gather(mask)


# ---- packages -------------------------------------------------------------------------------------------------------


def check_package_availability(package_name: str, owner: str) -> bool:
    """Return True if a package is installed and its home page is one of `owner`."""
    try:
        about: Any = metadata(package_name)
    except PackageNotFoundError:
        return False
    name, home = about.get("Name"), about.get("Home-page")
    return name == package_name and home is not None and owner in home


def is_accelerate_available() -> bool:
    """Return True if Hugging Face's accelerate is installed, which minisbert does not need."""
    return check_package_availability("accelerate", "huggingface")


def is_datasets_available() -> bool:
    """Return True if Hugging Face's datasets is installed."""
    return check_package_availability("datasets", "huggingface")


def is_training_available() -> bool:
    """Return True: what minisbert trains with is always installed."""
    return True


def get_installed_version(package_name: str) -> str | None:
    """Version of an installed package, that of the imported module first; None without it. Also of "python"."""
    if package_name == "python":
        return platform.python_version()
    imported = getattr(sys.modules.get(package_name.replace("-", "_")), "__version__", None)
    if isinstance(imported, str):
        return imported
    try:
        return version(package_name)
    except PackageNotFoundError:
        return None


def check_version_requirements(requirements: dict[str, Any] | None, source: str | None = None) -> None:
    """Check the versions of packages that a model asks for.

    Args:
        requirements: specifiers such as ">=5.1" by name of package, or {"specifier": ..., "reason": ...}. One that
            cannot be read is logged as a warning.
        source: name of the model, for messages.

    Raises:
        ImportError: a package is not there, or in another version.
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion

    missing = []
    for name, wanted in (requirements if isinstance(requirements, dict) else {}).items():
        package = "torch" if name == "pytorch" else name
        asked = wanted if isinstance(wanted, dict) else {"specifier": wanted}
        specifier, reason = asked.get("specifier", ""), asked.get("reason", "")
        found = get_installed_version(package)
        try:
            fits = found is not None and SpecifierSet(specifier, prereleases=True).contains(found)
        except (InvalidSpecifier, InvalidVersion, TypeError, AttributeError):
            logger.warning("cannot read the requirement %s %r of %s; it is not checked", package, specifier, source)
            continue
        if not fits:
            missing.append(f"{package}{specifier} (got {found or 'none'}{'; ' + reason if reason else ''})")
    if missing:
        raise ImportError(f"{source or 'the model'} needs {', '.join(missing)}: install what it needs")


# ---- logging --------------------------------------------------------------------------------------------------------


class LoggingHandler(logging.Handler):
    """A handler that writes above a progress bar, not across it."""

    def __init__(self, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record to standard output."""
        try:
            tqdm.write(self.format(record))
            self.flush()
        except Exception:  # as handlers do
            self.handleError(record)


def install_logger(
    given_logger: logging.Logger,
    level: int | str = logging.WARNING,
    fmt: str = "%(levelname)s:%(name)s:%(message)s",
) -> None:
    """Let a logger write in colours, through the package coloredlogs; "NOTICE" is a level above INFO.

    Raises:
        ConfigError: coloredlogs is not installed.
    """
    try:
        import coloredlogs  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise ConfigError("install_logger needs coloredlogs; expected it installed: pip install coloredlogs") from None
    logging.addLevelName(_NOTICE, "NOTICE")
    coloredlogs.install(logger=given_logger, level=level, fmt=fmt, use_chroot=False)


@contextmanager
def disable_logging(highest_level: int = logging.CRITICAL) -> Iterator[None]:
    """Drop log records up to a level, for the time of a block."""
    before = logging.root.manager.disable
    logging.disable(highest_level)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def disable_datasets_caching() -> Iterator[None]:
    """Keep the package datasets from writing files for its results, for the time of a block."""
    from datasets import disable_caching, enable_caching, is_caching_enabled

    enabled = is_caching_enabled()
    disable_caching()
    try:
        yield
    finally:
        if enabled:
            enable_caching()
