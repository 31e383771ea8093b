"""Files of embeddings: .parquet, .npy or .safetensors, of the same bytes for the same content."""

from __future__ import annotations

import io
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
    there: NDArray[np.bool_],
    columns: Mapping[str, tuple[list[Any], Any]] | None = None,
) -> None:
    """Write embeddings to a file whose name ends with its format; it appears complete, or not at all.

    A .npy file holds `values`. In a .safetensors file they are the tensor `embeddings`. A .parquet file has the columns
    `row` (int64), those of `columns`, and `embedding`, a list of a fixed size.

    Args:
        path: the file.
        values: those of the rows that have one, (rows, dim).
        first: number of the first row, for .parquet.
        about: where the embeddings are from; the metadata of .parquet and .safetensors.
        there: False for each row that has no embedding, (all rows,); only .parquet has such rows.
        columns: values and type of Arrow, or None for texts, of the columns to put beside them; for .parquet.

    Raises:
        InputError: the file cannot be written, or a value has another type than its column.
    """
    text = json.dumps(about)
    with replacing_file(path) as temporary:
        if path.suffix == ".npy":
            import numpy as np

            buffer = io.BytesIO()  # a file that numpy writes to says of a full disk only how many bytes were written
            np.save(buffer, values)
            temporary.write_bytes(buffer.getbuffer())
        elif path.suffix == ".safetensors":
            import numpy as np
            from safetensors.numpy import save_file

            # One entry of metadata, since several are written in any order.
            save_file({"embeddings": np.ascontiguousarray(values)}, temporary, metadata={"minisbert": text})
        else:
            _write_parquet(temporary, values, first, text, there, columns or {})
        flush(temporary)


def _write_parquet(
    path: Path,
    values: NDArray[Any],
    first: int,
    about: str,
    there: NDArray[np.bool_],
    columns: Mapping[str, tuple[list[Any], Any]],
) -> None:
    import pyarrow
    from pyarrow import ArrowException, parquet

    rows = len(there)
    arrays = {"row": pyarrow.array(range(first, first + rows), pyarrow.int64())}
    for name, (given, kind) in columns.items():
        try:
            arrays[name] = pyarrow.array([_as_text(value) for value in given] if kind is None else given, kind)
        except (ArrowException, OverflowError) as error:
            raise InputError(f"column {name} cannot be kept ({error}); expected values that Arrow holds") from None
    beside = [*arrays]
    table = pyarrow.table({**arrays, "embedding": list_array(values, there)}, metadata={"minisbert": about})
    whole_numbers = values.dtype.kind in "iu"  # four bytes each, unless they are entries of a dictionary
    parquet.write_table(
        table,
        path,
        row_group_size=max(1, rows),
        use_dictionary=True if whole_numbers else (beside if columns else False),
        write_statistics=["row"],
    )


def list_array(values: NDArray[np.generic], there: NDArray[np.bool_], *, fixed_size: bool = True) -> Any:
    """Make an array of Arrow of lists of `dim` values, which shares the memory of `values` where none is null.

    Args:
        values: those of the rows that are not null, (rows, dim).
        there: False for each row that is null, (all rows,).
        fixed_size: make lists of a fixed size.

    Raises:
        InputError: lists of any size would hold 2**31 values or more.
    """
    import numpy as np
    import pyarrow as pa

    count, missing, valid = len(there), int(np.count_nonzero(~there)), None
    if missing:
        spread = np.zeros((count, values.shape[1]), values.dtype)
        spread[there] = values
        values, valid = spread, pa.py_buffer(np.packbits(there, bitorder="little"))
    values, dim = np.ascontiguousarray(values), values.shape[1]
    item = pa.from_numpy_dtype(values.dtype)
    child = pa.Array.from_buffers(item, values.size, [None, pa.py_buffer(values)])  # the same memory
    if fixed_size:
        return pa.Array.from_buffers(pa.list_(item, dim), count, [valid], missing, children=[child])
    if values.size >= 2**31:
        raise InputError(f"got {count} texts; expected at most {2**31 // dim} in a batch: use smaller ones")
    starts = pa.py_buffer(np.arange(count + 1, dtype=np.int32) * np.int32(dim))
    return pa.Array.from_buffers(pa.list_(item), count, [valid, starts], missing, children=[child])


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
