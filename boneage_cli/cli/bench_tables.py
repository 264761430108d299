"""Prints the tables of ``boneage bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boneage_cli.cli.console import print_fields, print_table, warn
from boneage_cli.wording import counted, three_digits

if TYPE_CHECKING:
    import pandas as pd

    from boneage_cli.core.bench.benchmark import Benchmark
    from boneage_cli.core.bench.training import TrainingBenchmark


# Column headings of the rankings.
_FIGURES = {
    "images_per_s": "images/s",
    "single_ms": "ms",
    "images_per_s_per_million": "per million",
}


def print_training(measured: TrainingBenchmark) -> None:
    """Prints the training speed of networks, and how the time of a step is divided."""
    print_table(
        "Training, from the second epoch on",
        ("network", "data", "images/s", "of synthetic", "s per epoch", "of peak"),
        [
            (
                row["model"],
                row["data"],
                three_digits(row["images_per_s"]),
                f"{row['share_of_synthetic']:.1%}",
                three_digits(row["epoch_s"]),
                f"{row['share_of_peak']:.1%}",
            )
            for row in measured.rows
        ],
    )
    for network in measured.networks:
        real, synthetic = (row for row in measured.rows if row["model"] == network["model"])
        _print_step(real, synthetic)
        print_fields(_training_lines(network, real))
    about = measured.about
    hardware = f"{about['hardware']}; {about['device']}"
    print_fields({"hardware": hardware, "versions": _versions(about)})
    for note in measured.notes:
        warn(note)


def _print_step(real: dict[str, Any], synthetic: dict[str, Any]) -> None:
    from boneage_cli.core.bench.step_timing import STEP_PARTS

    totals = [sum(row[f"{part}_ms"] for part in STEP_PARTS) for row in (real, synthetic)]
    rows = [(part, real[f"{part}_ms"], synthetic[f"{part}_ms"]) for part in STEP_PARTS]
    print_table(
        f"A step of {real['model']}: {real['parameters']:,} parameters, {real['batch_size']} "
        f"images of {real['pixels']} pixels, precision {real['precision']}, ms",
        ("", "real", "share", "synthetic", "share"),
        [
            (name, three_digits(a), f"{a / totals[0]:.1%}", three_digits(b), f"{b / totals[1]:.1%}")
            for name, a, b in [*rows, ("total", *totals)]
        ],
    )


def _training_lines(network: dict[str, Any], real: dict[str, Any]) -> dict[str, str]:
    shares = dict(network["shares"])
    arithmetic = shares.pop("arithmetic")
    pairs = network["share_of_synthetic"]
    lost = sorted(shares.items(), key=lambda item: item[1], reverse=True)
    called = {"network": "forward and backward beyond that"}
    return {
        "real data": f"{real['share_of_synthetic']:.1%} of the speed on synthetic data, median of "
        f"{len(pairs)} pairs of epochs ({min(pairs):.1%} to {max(pairs):.1%})",
        "arithmetic": f"{three_digits(real['gflop_per_image'])} GFLOP per image, "
        f"{three_digits(real['gflop_per_s'])} of {three_digits(real['peak_gflop_per_s'])} GFLOP/s "
        f"that large matrix products reach: {real['share_of_peak']:.1%}",
        "held back": f"at that peak, arithmetic would take {arithmetic:.1%} of a step; "
        + ", ".join(f"{called.get(name, name)} {share:.1%}" for name, share in lost),
        "operators": ", ".join(
            f"{name} {share:.0%}" for name, share in network["operators"].items()
        ),
    }


def print_benchmark(measured: Benchmark) -> None:
    """Prints the measurements, part by part."""
    if measured.latency is not None:
        _print_latency(measured)
    networks = {row["model"]: row for row in measured.throughput}
    for name, row in networks.items():
        print_table(
            f"Forward passes of {name}: {row['parameters']:,} parameters, {row['pixels']} pixels, "
            "ms",
            ("batch", "mean", "std", "min", "max", "median", "per image", "images/s", "passes"),
            [
                (
                    each["batch_size"],
                    *(
                        three_digits(each[key])
                        for key in (
                            *("mean_ms", "std_ms", "min_ms", "max_ms", "median_ms"),
                            *("ms_per_image", "images_per_s"),
                        )
                    ),
                    each["passes"],
                )
                for each in measured.throughput
                if each["model"] == name
            ],
        )
    if measured.differences is not None:
        _print_differences(measured)
    elif len(networks) > 1:
        print_rankings(_ranked(measured))
    print_fields(_lines(measured))
    for note in measured.notes:
        warn(note)


def _print_differences(measured: Benchmark) -> None:
    rates: dict[str, float] = {}
    for row in measured.throughput:
        rates[row["asked"]] = max(row["images_per_s"], rates.get(row["asked"], 0.0))
    print_table(
        f"Backends, difference in months on {measured.images}",
        ("backend", "precision", "mean difference", "largest", "load s", "best images/s"),
        [
            (
                row["backend"],
                row["precision"],
                f"{row['mean_months']:.4f}",
                f"{row['largest_months']:.4f}",
                three_digits(row["load_s"]),
                three_digits(rates[row["backend"]]) if row["backend"] in rates else "",
            )
            for row in measured.differences or ()
        ],
        note="compared with torch in full precision",
    )


def _print_latency(measured: Benchmark) -> None:
    assert measured.latency is not None
    figures = measured.latency.to_dict()
    print_table(
        f"One radiograph from file to result, ms: {counted(figures['repetitions'], 'repetition')}, "
        f"{measured.images}",
        ("", "mean", "share", "p50", "p95", "p99"),
        [
            (
                name,
                three_digits(row["mean_ms"]),
                f"{row['share']:.0%}",
                *(three_digits(row[key]) for key in ("p50_ms", "p95_ms", "p99_ms")),
            )
            for name, row in figures["parts"].items()
        ],
    )


def _lines(measured: Benchmark) -> dict[str, str]:
    about, files, memory = measured.about, measured.files, measured.memory
    lines = {}
    if files is not None:
        threads = counted(files["workers"], "thread")
        by = (
            f"{files['processes']} processes"
            if files["processes"]
            else f"batches of {files['batch_size']}, {threads} reading"
        )
        lines["from files"] = (
            f"{three_digits(files['images_per_s'])} images/s, "
            f"{counted(files['images'], 'radiograph')} in {by}"
        )
        lines["start"] = f"{about['load_s']:.2f} s to load the model"
    if measured.reference is not None:
        naive = measured.reference
        lines["naive loop"] = (
            f"{three_digits(naive['images_per_s'])} images/s, "
            f"{counted(naive['images'], 'radiograph')}; boneage is {naive['ratio']:.2f} times as "
            "fast from files"
        )
    if memory is not None:
        more = f", {memory['gpu']:,.0f} MB of the GPU" if "gpu" in memory else ""
        # bench itself imports torch, most of what is loaded.
        if about["backend"] == "openvino":
            more += "; predict needs less, because it does not load torch here"
        lines["memory"] = (
            f"peak {memory['files']:,.0f} MB ({memory['loaded']:,.0f} MB once loaded){more}"
        )
    lines["hardware"] = f"{about['hardware']}; {about['device']}"
    if measured.differences is None:
        lines["hardware"] += f", {about['backend']}, precision {about['precision']}"
    lines["versions"] = _versions(about)
    return lines


def _versions(about: dict[str, Any]) -> str:
    packages = {"torch": "torch", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
    found = "".join(f", {name} {about[key]}" for key, name in packages.items() if key in about)
    return f"boneage {about['boneage']}{found}, Python {about['python']}; {about['date']}"


def _ranked(measured: Benchmark) -> pd.DataFrame:
    import pandas as pd

    from boneage_cli.core.bench.report import named, ranking

    return ranking(named(pd.DataFrame(measured.throughput).assign(source="")))


def print_rankings(networks: pd.DataFrame) -> None:
    """Prints networks by images/s, by the time of one image, and by images/s per parameter."""
    from boneage_cli.core.bench.report import RANKINGS, by

    for column, more_is_better, heading in RANKINGS:
        ranked = by(networks, column, more_is_better)
        if ranked.empty:
            continue
        left_out = len(networks) - len(ranked)
        print_table(
            f"Networks {heading}",
            ("network", "rank", _FIGURES[column], "batch size", "parameters"),
            [
                (
                    row["network"],
                    rank,
                    three_digits(row[column]),
                    1 if column == "single_ms" else row["best_batch"],
                    f"{row['parameters']:,}",
                )
                for rank, row in enumerate(ranked.to_dict("records"), 1)
            ],
            note=f"{left_out} not measured with batches of one image" if left_out else "",
        )
