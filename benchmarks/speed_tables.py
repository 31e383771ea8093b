"""Tables of what `run.py` measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

REFERENCE = "sentence-transformers"
# The peers that compute in a precision of ours.
PEERS_OF = {
    "minisbert fp32": ("ONNX Runtime", "OpenVINO fp32", "CTranslate2 fp32"),
    "minisbert bf16": ("OpenVINO bf16",),
    "minisbert int8": ("OpenVINO int8", "ONNX Runtime int8", "CTranslate2 int8"),
}


def markdown(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    """Return a Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def machine_line(result: dict[str, Any]) -> str:
    """Name the machine and the versions of a result."""
    machine, gpu = result["machine"], result.get("gpu")
    versions = ", ".join(
        f"{name} {number}"
        for name, number in machine["versions"].items()
        if name != "minisbert" and number != "not installed"
    )
    fused = f", C++ kernels {machine['cpp_kernels']}" if "cpp_kernels" in machine else ""
    device = (
        f"an {gpu['name']} ({gpu['memory_gb']:.0f} GB, driver {gpu['driver']}, CUDA {gpu['cuda']}, triton "
        f"{gpu['triton']}) and "
        if gpu
        else ""
    )
    return (
        f"Measured on {machine['date']} with {device}{machine['threads']} threads of an {machine['cpu']} (family/model "
        f"{machine['family_model']}, {machine['instructions']}{fused}), Python {machine['python']}, {versions}."
    )


def encode(result: dict[str, Any]) -> str:
    """Return texts per second by length class, and the quality of the embeddings."""
    classes: dict[str, dict[str, Any]] = result["classes"]
    names = list(dict.fromkeys(name for one in classes.values() for name in one["contenders"]))
    header = ("texts/s", *(f"{name}, mean {one['mean_tokens']:.0f} tokens" for name, one in classes.items()))
    speeds: list[tuple[Any, ...]] = [
        (name, *(_speed(one["contenders"].get(name)) for one in classes.values())) for name in names
    ]
    precisions = list(dict.fromkeys(name for one in classes.values() for name in one["seconds_at_limit"]))
    for precision in precisions:
        at_limit = (
            f"{one['texts'] / one['seconds_at_limit'][precision]:,.0f}" if precision in one["seconds_at_limit"] else ""
            for one in classes.values()
        )
        speeds.append((f"limit of the machine, {precision}", *at_limit))
    quality = [_quality(name, classes, result["spearman"]) for name in names]
    return "\n\n".join(
        [
            f"Encoding (`benchmarks/run.py encode`, {about(result)}): texts per second, and how many times that of "
            f"{REFERENCE} at its default batch size of 32 (median of the rounds, smallest to largest). The best batch "
            f"size is the best of 8 to 128. {_missing(result)}The limit is that of the useful floating-point "
            f"operations at the best rate of matrix products of these shapes, measured in the same rounds.",
            markdown(header, speeds),
            "How many times as fast as others in the same precision, each at its best batch size:",
            markdown(("times as fast", *classes), list(_against(classes))),
            markdown(
                ("", "share of the limit", "largest difference", "smallest cosine", "STS-B dev Spearman"), quality
            ),
        ]
    )


def _against(classes: dict[str, dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for ours, others in PEERS_OF.items():
        for other in others:
            found = (
                one["contenders"].get(ours, {}).get("times_as_fast_as", {}).get(f"{other}, best batch")
                for one in classes.values()
            )
            if any(ratios := [ratio(fast) for fast in found]):
                yield f"{ours} against {other}", *ratios


def _speed(one: dict[str, Any] | None) -> str:
    if one is None:
        return ""
    fast = one["times_as_fast_as"].get(REFERENCE)
    times = f" ({ratio(fast)})" if fast else ""
    return f"{one['texts_per_second']:,.0f}{times}"


def _quality(name: str, classes: dict[str, dict[str, Any]], spearman: dict[str, float]) -> tuple[str, ...]:
    found = [one["contenders"][name] for one in classes.values() if name in one["contenders"]]
    shares = [one["share_of_limit"] for one in found if one["share_of_limit"] is not None]
    score = spearman.get(name.removesuffix(", best batch"))
    compared = all("max_difference" in one for one in found)
    return (
        name,
        f"{min(shares):.0%} to {max(shares):.0%}" if shares else "",
        f"{max(one['max_difference'] for one in found):.1e}" if compared else "",
        f"{min(one['min_cosine'] for one in found):.6f}" if compared else "",
        f"{score:.4f}" if score is not None else "",
    )


def train(result: dict[str, Any]) -> str:
    """Return steps per second, losses, and scores after STS-B."""
    rows = []
    for name, case in result["cases"].items():
        for side, one in case["sides"].items():
            if "not_available" in one:
                continue
            times = ratio(one["times_as_fast"])
            limit = f"{one['share_of_limit']:.0%}" if one["share_of_limit"] is not None else ""
            loss = f"{one['first_loss']:.4f}, {one['last_loss']:.4f}"
            alike = ratio(one["times_as_fast_in_precision"]) if one.get("times_as_fast_in_precision") else ""
            peak = f"{one['peak_mb']:,.0f}" if one.get("peak_mb") else ""
            rows.append((name, side, f"{one['steps_per_second']:.2f}", times, alike, limit, peak, loss))
    header = (
        *("loss and batch", "", "steps/s", "of the reference in fp32", "of the reference in the same precision"),
        *("share of the limit", "peak memory, MB", "first and last loss"),
    )
    parts = [
        f"Training (`benchmarks/run.py train`, {about(result)}): optimizer steps per second without set-up, the same "
        f"rows in the same order; dropout is drawn differently on both sides. Peak memory is that of a process "
        "of its own.",
        markdown(header, rows),
    ]
    if result["stsb"]:
        scored = result["stsb"]
        parts += [
            f"STS-B dev Spearman after {scored['steps']} steps of {scored['batch_size']} pairs of STS-B train:",
            markdown(("", "Spearman"), [(side, f"{value:.4f}") for side, value in scored["spearman"].items()]),
        ]
    return "\n\n".join(parts)


def latency(result: dict[str, Any]) -> str:
    """Return the latency of one short text."""
    rows, shares = [], []
    for name, one in result["contenders"].items():
        busy = result["one core busy"][name]
        times = (f"{each[part] * 1000:.2f} ms" for each in (one, busy) for part in ("p50", "p90"))
        rows.append((name, *times, ratio(one.get("times_as_fast"))))
        shares += [(f"{name} against {other}", ratio(share)) for other, share in one["share_of_time"].items()]
    header = ("", "median", "90 % within", "median, one core busy", "90 % within", "times as fast as the reference")
    return (
        f"One short text of 10 to 20 tokens (`benchmarks/run.py latency`, {result['calls']} calls each, in blocks that "
        f"take turns, each contender in a process of its own); also while another process keeps a core busy. "
        f"{_missing(result)}\n\n{markdown(header, rows)}\n\nThe share of the time of others in the same precision "
        f"(below 1 is faster):\n\n{markdown(('', 'share of the time'), shares)}"
    )


def memory(result: dict[str, Any]) -> str:
    """Return the peak memory of fresh processes."""
    few, most = (str(count) for count in result["texts"])
    rows = []
    for way, of in result["ways"].items():
        if "not_available" not in of[most]:
            small, large = of[few], of[most]
            rows.append((way, *(f"{value:,.0f}" for value in (large["loaded"], small["peak"], large["peak"]))))
    header = ("MB", "model and texts loaded", f"peak, {int(few):,} texts", f"peak, {int(most):,} texts")
    return (
        "Peak memory of fresh processes that embed short texts, the texts included (`benchmarks/run.py memory`):\n\n"
        + markdown(header, rows)
    )


def cached(result: dict[str, Any]) -> str:
    """Return peak memory and time of a step by batch size, with and without the gradient cache."""
    rows = [
        (f"{int(batch):,}", way, f"{one['loaded']:,.0f}", f"{one['peak']:,.0f}", f"{one['seconds']['median']:.2f}")
        for batch, ways in result["batches"].items()
        for way, one in ways.items()
        if "not_available" not in one
    ]
    text = (
        f"Training with MultipleNegativesRankingLoss in float32, plain and with the gradient cache in mini-batches of "
        f"{result['mini_batch_size']} texts (`benchmarks/run.py cached`, {about(result)}), each run in a process of "
        f"its own:"
    )
    header = ("pairs in a batch", "", "MB when loaded", "MB at the peak", "seconds of a step")
    return f"{text}\n\n{markdown(header, rows)}"


def kernels(result: dict[str, Any]) -> str:
    """Return the speed of each operation of a training step."""
    return (
        "Operations of a training step against their plain definitions, times as fast (`benchmarks/run.py kernels`); "
        "differences are absolute, of gradients that are sums over all tokens too:\n\n" + operations(result)
    )


def operations(result: dict[str, Any]) -> str:
    """Return the table of operations against their plain definitions."""
    rows = []
    for name, one in result["operations"].items():
        ratios = (ratio(one[kind]["times_as_fast"]) for kind in ("forward", "both"))
        rows.append((name, *ratios, *(f"{one['max_difference'][part]:.1e}" for part in ("output", "gradients"))))
    return markdown(("operation", "forward", "with backward", "largest difference", "of gradients"), rows)


def families(result: dict[str, Any]) -> str:
    """Return texts per second of models of each native family, and the memory of one very long text."""
    rows = []
    for name, lengths in result["models"].items():
        for way in dict.fromkeys(way for ways in lengths.values() for way in ways):
            found = [ways[way] for ways in lengths.values()]
            speeds = (f"{result['texts'] / one['seconds']['median']:.1f}" for one in found)
            ratios = (ratio(one.get("times_as_fast")) for one in found)
            off = max((one["difference"] for one in found if "difference" in one), default=None)
            cells = (cell for pair in zip(speeds, ratios, strict=True) for cell in pair)
            rows.append((name, way, *cells, "" if off is None else f"{off:.1e}"))
    kinds = next(iter(result["models"].values()))
    header = ("model", "", *(cell for kind in kinds for cell in (f"texts/s, {kind}", f"x {REFERENCE}")), "difference")
    long_text = result["long"]
    long = [(way, f"{one['seconds']:.1f}", f"{one['MB']:,.0f}") for way, one in long_text["ways"].items()]
    return "\n\n".join(
        [
            f"{result['texts']} texts of made-up words, embedded by models of random weights "
            f"(`benchmarks/run.py families`, {result['rounds']} rounds, interleaved); mixed lengths are "
            f"64, 128, 256, 512 and 1,024 tokens in equal parts. The last column is the largest difference of a value "
            f"of the normalized embeddings from {REFERENCE} in float32:",
            markdown(header, rows),
            f"One text of {long_text['tokens']:,} tokens, {long_text['model']}, each in a process of its own; "
            f"memory is the most beyond that of the loaded model:",
            markdown(("", "seconds", "MB of memory"), long),
        ]
    )


def families_in_short(result: dict[str, Any]) -> str:
    """Return one row for each model: the largest difference, and medians of speed in float32."""
    rows, kinds = [], list(next(iter(result["models"].values())))
    for name, lengths in result["models"].items():
        found = [lengths[kind]["minisbert fp32"] for kind in kinds]
        speeds = (f"{one['times_as_fast']['median']:.1f}" for one in found)
        rows.append((name, f"{max(one['difference'] for one in found):.1e}", *speeds))
    header = ("random weights, float32", "largest difference", *(f"x {REFERENCE}, {kind}" for kind in kinds))
    return f"{markdown(header, rows)}\n\n{machine_line(result)}"


def static(result: dict[str, Any]) -> str:
    """Return texts per second of a static model, many at once and one at a time."""
    rows = []
    for name, many in result["many"].items():
        one = result["one"][name]
        speeds = (f"{result['texts'] / many['seconds']['median']:,.0f}", ratio(many.get("slower")))
        single = (f"{result['single'] / one['seconds']['median']:,.0f}", ratio(one.get("slower")))
        rows.append((name, *speeds, *single))
    header = ("texts/s", "many", "minisbert to it", "one at a time", "minisbert to it")
    return (
        f"{result['texts']:,} titles by a static model of {result['dim']} dimensions with the vocabulary of "
        f"all-MiniLM-L6-v2 and random rows (`benchmarks/run.py static`, {about(result)}); the largest difference of "
        f"minisbert from {REFERENCE} is {result['difference']:.1e}. {_missing(result)}\n\n{markdown(header, rows)}"
    )


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "encode": encode,
    "train": train,
    "latency": latency,
    "memory": memory,
    "cached": cached,
    "kernels": kernels,
    "families": families,
    "static": static,
}


def ratio(fast: dict[str, float] | None) -> str:
    """Format a ratio: the median, the smallest and the largest."""
    return f"{fast['median']:.2f}x, {fast['low']:.2f} to {fast['high']:.2f}" if fast else ""


def about(result: dict[str, Any]) -> str:
    """Name the data and the number of rounds."""
    return f"{result['data']}, {result['rounds']} rounds, interleaved"


def _missing(result: dict[str, Any]) -> str:
    return "".join(f"Not available: {name}. " for name in result["not_available"])
