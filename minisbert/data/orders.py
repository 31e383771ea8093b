"""The names of the orders that rows can be trained in; `sampling.py` makes them."""

from __future__ import annotations

from typing import Literal, TypeAlias

RowSampling: TypeAlias = Literal["batch_sampler", "no_duplicates"]
DatasetOrder: TypeAlias = Literal["proportional", "round_robin"]
