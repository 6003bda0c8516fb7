"""From measurements to RESULTS.md: every number and verdict is computed."""

from statistics import median
from typing import Any

from benchmarks.machine import Machine
from malmoi.markdown import table
from quant.fidelity import LANGUAGES, Fidelity

MIB = 1 << 20
EXPLANATION = """The group is the largest of 128 (GPTQModel's default),
64 and 32 that divides the parent's widths. ours: malmoi-quant export with its release recipe, calibrated on
Korean and English. GPTQModel itself: load, quantize and save as in its README, everything else its default,
calibrated on English: as many tokens as ours draws, in rows as long; rows for new tokens come on top of ours.
Neither is measured on texts that it was calibrated on. KL in nats per token. Each in processes of its own, in
turn; time is from start to end, memory the greatest of all its processes together; a ratio is ours / theirs
within one repeat, median (least-greatest)."""
NAMES = {"ours": "ours", "gptqmodel": "GPTQModel itself"}


def render(results: dict[str, Any]) -> str:
    """RESULTS.md."""
    found = {name: Fidelity.from_record(record) for name, record in results["fidelity"].items()}
    parts = [
        "# GPTQ: ours against GPTQModel called directly",
        Machine(**results["machine"]).heading(results["command"]),
        f"Parent: {results['parameters']:,} parameters; groups of {results['group_size']}. {EXPLANATION}",
        "## Fidelity",
        _fidelity(found),
        _verdict(found),
        "## Cost",
        _cost(results["runs"]),
    ]
    return "\n\n".join(parts) + "\n"


def _fidelity(found: dict[str, Fidelity]) -> str:
    rows = []
    for language in LANGUAGES:
        for name, fidelity in found.items():
            text = fidelity.text[language]
            if text is None:
                continue
            more = text.export.bits_per_byte / text.parent.bits_per_byte - 1
            new = text.by_token.get("new")
            rows.append(
                [
                    f"{language.capitalize()}, {NAMES[name]}",
                    f"{text.export.bits_per_byte:.4f} ({more:+.2%})",
                    f"{text.kl_mean:.5f}",
                    f"{text.kl_p99:.4f}",
                    f"{text.top1_agreement:.2%}",
                    f"{new.kl_mean:.5f}" if new else None,
                    f"{new.top1_agreement:.2%}" if new else None,
                ]
            )
    head = ["", "bits per byte (over the parent's)", "mean KL", "p99 KL", "top-1"]
    return table([*head, "mean KL, new tokens", "top-1, new tokens"], rows)


def _verdict(found: dict[str, Fidelity]) -> str:
    """Mean KL of ours by theirs, where both were measured; below 1 ours is nearer to the parent."""
    ratios, sums = [], dict.fromkeys(NAMES, 0.0)
    for language in LANGUAGES:
        ours, theirs = (found[name].text[language] for name in NAMES)
        if ours is None or theirs is None:
            continue
        ratios.append(f"{language.capitalize()} {ours.kl_mean / theirs.kl_mean:.2f}")
        sums["ours"] += ours.num_tokens * ours.kl_mean
        sums["gptqmodel"] += theirs.num_tokens * theirs.kl_mean
        new, their_new = ours.by_token.get("new"), theirs.by_token.get("new")
        if new and their_new:
            ratios.append(f"its new tokens {new.kl_mean / their_new.kl_mean:.2f}")
    ratios.append(f"all tokens {sums['ours'] / sums['gptqmodel']:.2f}")
    return f"Mean KL, ours / theirs: {', '.join(ratios)}."


def _cost(runs: list[dict[str, Any]]) -> str:
    by_name = {name: [run for run in runs if run["contender"] == name] for name in NAMES}
    rows = [
        [
            NAMES[name],
            f"{median(run['seconds'] for run in own):.1f}",
            f"{median(run['peak_bytes'] for run in own) / MIB:,.0f}",
            f"{own[-1]['disk_bytes'] / MIB:,.1f}",
        ]
        for name, own in by_name.items()
    ]
    pairs = list(zip(*by_name.values(), strict=True))
    ratios = {
        what: [ours[name] / theirs[name] for ours, theirs in pairs]
        for what, name in (("Time", "seconds"), ("Peak memory", "peak_bytes"))
    }
    spread = " ".join(
        f"{what} ours / theirs: {median(values):.2f} ({min(values):.2f}-{max(values):.2f})."
        for what, values in ratios.items()
    )
    return f"{table(['', 'time, s', 'peak memory, MiB', 'MiB on disk'], rows)}\n\n{spread}"
