"""What `bench_scale` has measured, as Markdown."""

from __future__ import annotations

from typing import Any

__all__ = ["BATCH", "SCALE_BATCH", "tables"]

BATCH = 256
SCALE_BATCH = 32


def tables(report: dict[str, Any]) -> str:
    """Return all results as Markdown."""
    lines: list[str] = []
    for part, write in (("peers", peers_table), ("scale", scale_table), ("torch", torch_table)):
        if part in report:
            lines += [*write(report[part]), ""]
    machine = report["machine"]
    versions = f"Python {machine['python']}, NumPy {machine['numpy']}"
    lines.append(f"One thread of {machine['processor']}, {versions}.")
    return "\n".join(lines) + "\n"


def peers_table(part: dict[str, Any]) -> list[str]:
    """Return unit-steps a second, and what a step costs."""
    batch = {
        row["wiring"]: row["unit_steps_a_second"]
        for row in part["rows"]
        if row["way"] == "array engine" and row["trials"] == BATCH
    }
    lines = [
        "Circuits of errors and latents, one frame held: 1,000 units with nine weights a unit each "
        "way, 128 units with dense weights, and the laminar column without its delays, "
        f"{column_size(part):,} units (load {part['load']:.1f}):",
        "",
        "| wiring | way | trials at once | million unit-steps a second | µs a step "
        f"| {BATCH} trials on arrays are faster |",
        "|---|---|---|---|---|---|",
    ]
    for row in part["rows"]:
        rate, step = row["unit_steps_a_second"], 1e6 * row["step"]
        lines.append(
            f"| {row['wiring']} | {row['way']} | {row['trials']} | {rate / 1e6:.1f} | {step:.0f} "
            f"| {batch[row['wiring']] / rate:.1f} times |"
        )
    compiled = [row for row in part["rows"] if "compile" in row]
    if compiled:
        seconds = " and ".join(f"{row['compile']:.0f} s" for row in compiled)
        worst = max(row["difference"] for row in compiled)
        lines += ["", f"Compiling the C++ programs took {seconds} and is not counted. "
                  f"Largest difference of a rate from the array engine: {worst:.1e}."]  # fmt: skip
    return lines


def column_size(part: dict[str, Any]) -> int:
    """Return the number of units of the laminar column."""
    return next(row["units"] for row in part["rows"] if row["wiring"] == "column")


def scale_table(part: dict[str, Any]) -> list[str]:
    """Return the cost by size."""
    costs = {(row["units"], row["trials"]): row["ns_processor"] for row in part["rows"]}
    sizes = sorted({units for units, _ in costs})
    batch = [costs[size, SCALE_BATCH] for size in sizes]
    memory = part["memory"]
    lines = [
        f"Cost by size, local weights, ns a unit and step (load {part['load']:.1f}):",
        "",
        f"| units | one trial | {SCALE_BATCH} trials |",
        "|---|---|---|",
    ]
    lines += [
        f"| {size:,} | {costs[size, 1]:.1f} | {costs[size, SCALE_BATCH]:.1f} |" for size in sizes
    ]
    return [
        *lines,
        "",
        f"At {SCALE_BATCH} trials the dearest size costs {max(batch) / min(batch):.2f} times the "
        f"cheapest. Memory at {memory['units']:,} units: "
        f"{memory['bytes_a_unit_with_2_trials']:.0f} bytes a unit with two trials, and "
        f"{memory['bytes_a_unit_and_further_trial']:.1f} bytes a unit for every further trial, of "
        f"which {memory['of_these_recorded']:.0f} are the record; the stimulus is not counted.",
    ]


def torch_table(part: dict[str, Any]) -> list[str]:
    """Return the cost on torch arrays."""
    if "skipped" in part:
        return [f"Torch arrays: skipped ({part['skipped']})."]
    n = part["units"] * part["trials"]
    rows = [(name, part[name]) for name in ("numpy", "cpu", "cuda") if isinstance(part[name], dict)]
    text = ", ".join(f"{name} {1e9 * row['wall'] / n:.1f}" for name, row in rows)
    worst = max(row["difference"] for _, row in rows if "difference" in row)
    cuda = "" if isinstance(part["cuda"], dict) else f" GPU {part['cuda']}."
    return [
        f"Torch arrays, {part['units']:,} units, {part['trials']} trials, ns a unit and step of "
        f"wall time (load {part['load']:.1f}): {text}. Largest relative difference from NumPy "
        f"{worst:.1e}.{cuda}"
    ]
