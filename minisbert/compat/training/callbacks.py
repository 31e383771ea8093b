"""State, control and callbacks of a run, as code for transformers' `TrainerCallback` expects them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ConfigError, shown, warn
from ..checks import check_list
from .arguments import BaseTrainingArguments

# Callbacks that only show or schedule what the run itself shows and schedules; they are known by their names.
_BUILT_IN = ("DefaultFlowCallback", "ProgressCallback", "NotebookProgressCallback", "PrinterCallback")
# Events within a step, which the loop does not stop for.
_WITHIN_STEPS = ("on_pre_optimizer_step", "on_optimizer_step", "on_substep_end")
_BASE = "TrainerCallback"
_STATEFUL = "ExportableState"


@dataclass
class TrainerState:
    """The place where a run stands.

    Attributes:
        epoch: passes over the rows done, with the part of the present one.
        global_step: optimizer steps done.
        max_steps: optimizer steps of the whole run.
        log_history: every entry of the log: of losses, of evaluations, and of the end.
        best_metric: best value so far of the metric that decides which weights are best.
        best_global_step: the step it was reached at.
        best_model_checkpoint: the folder with the weights of that step, or None.
    """

    epoch: float = 0
    global_step: int = 0
    max_steps: int = 0
    logging_steps: int = 500
    eval_steps: int = 500
    save_steps: int = 500
    train_batch_size: int | None = None
    num_train_epochs: int = 0
    num_input_tokens_seen: int = 0
    total_flos: float = 0
    log_history: list[dict[str, float]] = field(default_factory=list)
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True
    is_hyper_param_search: bool = False
    trial_name: str | None = None
    trial_params: dict[str, Any] | None = None
    stateful_callbacks: Any = None

    def save_to_json(self, json_path: str | Path) -> None:
        """Write the state to a file."""
        Path(json_path).write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")


@dataclass
class TrainerControl:
    """The next things in a run, which callbacks may change."""

    should_training_stop: bool = False
    should_epoch_stop: bool = False
    should_save: bool = False
    should_evaluate: bool = False
    should_log: bool = False


class CallbackHandler:
    """Call the callbacks of a run.

    Args:
        callbacks: objects with methods such as `on_step_end(args, state, control, **kwargs)`, or their classes.

    Attributes:
        callbacks: the objects.
        control: what follows, as the last callback left it.
        context: keyword arguments of every call, such as the model.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self.callbacks: list[Any] = []
        self.control = TrainerControl()
        self.context: dict[str, Any] = {}
        for callback in check_list(callbacks, "callbacks", of="callbacks"):
            self.add_callback(callback)

    @property
    def callback_list(self) -> str:
        """Names of the classes, one a line."""
        return "\n".join(type(one).__name__ for one in self.callbacks)

    def add_callback(self, callback: Any) -> None:
        """Add a callback or, given its class, a new one.

        Raises:
            ConfigError: it has no event of a callback, or wants to be called within steps.
        """
        added = callback() if isinstance(callback, type) else callback
        if type(added).__name__ in _BUILT_IN:
            return
        if not any(name.startswith("on_") for name in dir(added)):
            raise ConfigError(
                f"got the callback {shown(callback)}; expected a TrainerCallback: derive its class from it"
            )
        name = type(added).__name__
        if within := [event for event in _WITHIN_STEPS if _overrides(type(added), event)]:
            raise ConfigError(
                f"got the callback {name} with {within[0]}, which is not called; expected events between steps, such "
                f"as on_step_end: use one of them"
            )
        if any(type(one) is type(added) for one in self.callbacks):
            warn(f"there are now two callbacks {name}, and both are called")
        self.callbacks.append(added)

    def pop_callback(self, callback: Any) -> Any:
        """Remove a callback, or the first of a class, and return it; None if there is none."""
        for one in self.callbacks:
            if one is callback or (isinstance(callback, type) and isinstance(one, callback)):
                self.callbacks.remove(one)
                return one
        return None

    def call(self, event: str, arguments: BaseTrainingArguments, state: TrainerState, **more: Any) -> None:
        """Call a method of all callbacks that have it."""
        for callback in self.callbacks:
            if method := getattr(callback, event, None):
                result = method(arguments, state, self.control, **self.context, **more)
                if result is not None:
                    self.control = result

    def states(self) -> dict[str, Any]:
        """Return the states of the callbacks that have one, by the names of their classes; of several, a list."""
        found: dict[str, list[Any]] = {}
        for one in filter(_has_state, self.callbacks):
            found.setdefault(type(one).__name__, []).append(one.state())
        control = {"args": asdict(self.control), "attributes": {}}
        return {name: own if len(own) > 1 else own[0] for name, own in found.items()} | {"TrainerControl": control}

    def load_states(self, states: Mapping[str, Any]) -> None:
        """Make the callbacks anew with the states of those of the same class; warn of states that none has."""
        for name, saved in states.items():
            places = [at for at, one in enumerate(self.callbacks) if type(one).__name__ == name and _has_state(one)]
            if not places and name != "TrainerControl":  # whose flags are those of the step that is done
                warn(f"the checkpoint has the state of a callback {name}, and there is none: pass it to go on with it")
            for at, state in zip(places, saved if isinstance(saved, list) else [saved], strict=False):
                self.callbacks[at] = type(self.callbacks[at])(**state.get("args", {}))
                vars(self.callbacks[at]).update(state.get("attributes", {}))


def _has_state(callback: Any) -> bool:
    """Return True for a callback whose state transformers keeps in checkpoints."""
    return any(one.__name__ == _STATEFUL for one in type(callback).__mro__)


def _overrides(kind: type, event: str) -> bool:
    """Return True if a class, or a base of it other than transformers' own, defines a method."""
    return any(event in vars(one) for one in _without_base(kind.__mro__))


def _without_base(kinds: Iterable[type]) -> list[type]:
    return [one for one in kinds if one.__name__ != _BASE]
