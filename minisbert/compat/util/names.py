"""Names of classes and functions, and decorators for old names of arguments."""

from __future__ import annotations

import functools
import logging
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from ...errors import ConfigError, InputError
from ...similarity import SimilarityFunction
from ...storage.locate import ORIGINAL_TRANSFORMER_MODELS as ORIGINAL_TRANSFORMER_MODELS

logger = logging.getLogger(__name__)
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def fullname(obj: Any) -> str:
    """Return the module and name of a class, or of the class of an object; the name alone for one of Python's own."""
    kind = obj if isinstance(obj, type) else type(obj)
    return kind.__name__ if kind.__module__ in (None, "builtins") else f"{kind.__module__}.{kind.__name__}"


def similarity_fct_name(similarity_fct: Callable[..., Any]) -> str:
    """Return the name of a score function for settings, with the values that it is bound to."""
    if isinstance(similarity_fct, functools.partial):
        name = similarity_fct_name(similarity_fct.func)
        return _with_values(name, similarity_fct.keywords) if similarity_fct.keywords else name
    name = getattr(similarity_fct, "__name__", type(similarity_fct).__name__)
    own = getattr(getattr(similarity_fct, "__self__", None), "similarity_fn_name", None)
    if own is not None and name in ("similarity", "similarity_pairwise"):
        function = SimilarityFunction.of(own)
        return (function.matrix if name == "similarity" else function.pairwise).__name__
    config = getattr(similarity_fct, "get_config_dict", None)
    return name if config is None else _with_values(name, config())


def _with_values(name: str, values: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in values.items())})"


def import_from_string(dotted_path: str) -> Any:
    """Import what a dotted name stands for, such as a class in a module.

    Raises:
        ImportError: there is no such module, or it lacks the name.
    """
    if "." not in dotted_path:
        raise ImportError(f"got {dotted_path!r}; expected a module and a name in it, with a dot between them")
    try:
        return pkgutil.resolve_name(dotted_path)
    except (AttributeError, ValueError) as error:
        raise ImportError(f"cannot find {dotted_path} ({error}); expected a name in a module") from error


def import_module_class(
    class_ref: str,
    model_name_or_path: str | None = None,
    *,
    trust_remote_code: bool = False,
    revision: str | None = None,
    code_revision: str | None = None,
    token: bool | str | None = None,
    cache_folder: str | None = None,
    local_files_only: bool = False,
) -> Any:
    """Import the class of a module of a model, also one whose code is in the folder of the model.

    Raises:
        ConfigError: the class is not one of the library, and `trust_remote_code` is not set.
        ImportError: there is no such class.
    """
    if class_ref.startswith(("sentence_transformers.", "minisbert.")) or model_name_or_path is None:
        return import_from_string(class_ref)
    if not trust_remote_code:
        raise ConfigError(
            f"got the class {class_ref!r} in the settings of {model_name_or_path}; expected one of the library, as "
            f"another runs code of its own: read it, and pass trust_remote_code=True"
        )
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    try:
        return get_class_from_dynamic_module(
            class_ref,
            model_name_or_path,
            revision=revision,
            code_revision=code_revision,
            token=token,
            cache_dir=cache_folder,
            local_files_only=local_files_only,
        )
    except (OSError, ValueError):  # no such file, or a name that is none of a file
        return import_from_string(class_ref)


def check_teacher_targets(
    teacher_probabilities: Tensor, teacher_logits: Tensor, teacher_temperature: float, loss_name: str
) -> None:
    """Check the scores of a teacher: log a warning if some become probabilities of 0, which teach nothing.

    Raises:
        InputError: a score is NaN.
    """
    scores = teacher_logits.detach().float()
    if scores.isnan().any():
        raise InputError(f"got NaN as a teacher's score for {loss_name}; expected numbers: check their column")
    gone = int((teacher_probabilities == 0).sum())
    if not gone or scores.isinf().any():  # infinite scores exclude candidates on purpose
        return
    spread = float((scores.amax(dim=-1) - scores.amin(dim=-1)).max())
    logger.warning(
        "%s: %d of %d teacher scores become 0 at teacher_temperature=%s; scores spread over %.1f need more than %.3g",
        loss_name,
        gone,
        teacher_probabilities.numel(),
        teacher_temperature,
        spread,
        spread / 100,
    )


def deprecated_kwargs(**renames: str) -> Callable[[AnyFunction], AnyFunction]:
    """Make a decorator that takes old names of arguments for new ones, with a warning in the log: `old="new"`."""

    def decorate(function: AnyFunction) -> AnyFunction:
        @functools.wraps(function)
        def renamed(*args: Any, **kwargs: Any) -> Any:
            for old, new in renames.items():
                if old in kwargs:
                    logger.warning("the argument %s is now called %s", old, new)
                    value = kwargs.pop(old)
                    kwargs.setdefault(new, value)
            return function(*args, **kwargs)

        return renamed  # type: ignore[return-value]

    return decorate


def save_to_hub_args_decorator(func: AnyFunction) -> AnyFunction:
    """Let a method `save_to_hub` take `repo_name` for `repo_id`, and positional arguments from before `token`."""

    @functools.wraps(func)
    def renamed(self: Any, *args: Any, **kwargs: Any) -> Any:
        name = kwargs.pop("repo_name", None)
        if name:
            logger.warning("the argument repo_name is now called repo_id")
            kwargs.setdefault("repo_id", name)
        if len(args) > 1:
            args = (*args[:2], None, *args[2:])
        return func(self, *args, **kwargs)

    return renamed  # type: ignore[return-value]
