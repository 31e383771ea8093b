"""Files of embeddings: .parquet, .npy or .safetensors, of the same bytes for the same content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .files import flush, replacing_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PART_FORMATS = ("parquet", "npy", "safetensors")


def write_part(
    path: Path,
    values: NDArray[Any],
    *,
    first: int,
    about: Mapping[str, Any],
    nulls: NDArray[np.bool_] | None = None,
    columns: Mapping[str, tuple[list[Any], Any]] | None = None,
) -> None:
    """Write embeddings to a file whose name ends with its format; it appears complete, or not at all.

    A .npy file holds `values`. In a .safetensors file they are the tensor `embeddings`. A .parquet file has the columns
    `row` (int64), those of `columns`, and `embedding`, a list of a fixed size.

    Args:
        path: the file.
        values: (rows, dim).
        first: number of the first row, for .parquet.
        about: where the embeddings are from; the metadata of .parquet and .safetensors.
        nulls: (rows,), True where a row has no embedding; for .parquet.
        columns: values and type of Arrow, or None for texts, of the columns to put beside them; for .parquet.

    Raises:
        InputError: the file cannot be written, or a value has another type than its column.
    """
    text = json.dumps(about)
    with replacing_file(path) as temporary:
        if path.suffix == ".npy":
            import numpy as np

            with temporary.open("wb") as file:
                np.save(file, values)
        elif path.suffix == ".safetensors":
            import numpy as np
            from safetensors.numpy import save_file

            # One entry of metadata, since several are written in any order.
            save_file({"embeddings": np.ascontiguousarray(values)}, temporary, metadata={"minisbert": text})
        else:
            _write_parquet(temporary, values, first, text, nulls, columns or {})
        flush(temporary)


def _write_parquet(
    path: Path,
    values: NDArray[Any],
    first: int,
    about: str,
    nulls: NDArray[np.bool_] | None,
    columns: Mapping[str, tuple[list[Any], Any]],
) -> None:
    import pyarrow
    from pyarrow import ArrowException, parquet

    rows, dim = values.shape
    mask = None if nulls is None else pyarrow.array(nulls)
    embeddings = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), dim, mask=mask)
    arrays = {"row": pyarrow.array(range(first, first + rows), pyarrow.int64())}
    for name, (given, kind) in columns.items():
        try:
            arrays[name] = pyarrow.array([_as_text(value) for value in given] if kind is None else given, kind)
        except (ArrowException, OverflowError) as error:
            raise InputError(f"column {name} cannot be kept ({error}); expected values that Arrow holds") from None
    beside = [*arrays]
    table = pyarrow.table({**arrays, "embedding": embeddings}, metadata={"minisbert": about})
    whole_numbers = values.dtype.kind in "iu"  # four bytes each, unless they are entries of a dictionary
    parquet.write_table(
        table,
        path,
        row_group_size=max(1, rows),
        use_dictionary=True if whole_numbers else (beside if columns else False),
        write_statistics=["row"],
    )


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def is_whole(path: Path, *, rows: int) -> bool:
    """Return True if a file of `write_part` is there, complete, and of so many rows."""
    try:
        if path.suffix == ".npy":
            import numpy as np

            values = np.load(path, mmap_mode="r")
            return len(values) == rows and path.stat().st_size == values.offset + values.nbytes
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "numpy") as file:
                return bool(file.get_slice("embeddings").get_shape()[0] == rows)
        from pyarrow import parquet

        return bool(parquet.read_metadata(path).num_rows == rows)
    except FileNotFoundError:
        return False
    except Exception:  # libraries raise errors of any type for a damaged file, which is written again
        return False


def parquet_types(path: Path) -> dict[str, Any]:
    """Return the types of Arrow of the columns of a .parquet file."""
    from pyarrow import parquet

    schema = parquet.read_schema(path)
    return {name: schema.field(name).type for name in schema.names}
