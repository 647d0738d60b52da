"""A plan in words, for `--dry-run`."""

from __future__ import annotations

from .cost import phases
from .plan import EFFICIENCY, Fit, Plan

RECOMPUTED = {
    "none": "nothing",
    "one_level": "blocks of the highest resolution",
    "two_levels": "blocks of the two highest resolutions",
    "control": "the trained network's blocks",
    "decoder": "the frozen decoder's blocks",
    "both": "all blocks",
}


def text(plan: Plan, family: str) -> str:
    """Some lines."""
    config, card = plan.config, plan.card
    share = config.run.batch // card.processes
    parts = -(-share // config.hardware.micro_batch)
    total = plan.step_tflop * config.run.steps
    mean = ", in the run's mean step" if len(phases(config)) > 1 else ""
    lines = [
        f"{family} at {config.data.resolution} px on {card.processes} x {card.name}, "
        f"{card.memory:.1f} GiB, {card.tflops:.3g} TFLOP/s",
        "",
        f"pair        {plan.chosen.cost.tflop:.4g} TFLOP, {plan.costs.forward:.4g} of it forward{mean}",
        f"step        {config.run.batch} pairs, {plan.step_tflop:.4g} TFLOP: {card.processes} process(es) with {parts} "
        f"micro-batch(es) of {config.hardware.micro_batch}",
        f"run         {config.run.steps} steps, {total / 1000:.4g} PFLOP, and {plan.validation_tflop / 1000:.3g} for "
        f"validation: about {duration(plan.hours)} at {EFFICIENCY:.0%} of that speed",
        f"recomputed  {RECOMPUTED[config.hardware.checkpointing]}",
        f"trained     {plan.costs.trained / 1e6:.1f} million parameters on a base of {plan.costs.base / 1e6:.1f}",
        "",
        *memory(plan.chosen, card.memory),
        "",
        "One pair at a time, as much recomputed as the settings allow, each line with the changes above it",
        "(optimizer.in_backward is of its own line only):",
        *(f"  {fit.total:7.2f} GiB  {verdict(fit, card.memory):4}  {name}" for name, fit in plan.ladder),
    ]
    if not plan.fits:
        lines += ["", refusal(plan)]
    return "\n".join(lines)


def memory(fit: Fit, limit: float) -> list[str]:
    """By part."""
    rows = [f"  {value:7.2f} GiB  {name}" for name, value in fit.memory.items() if value]
    return ["memory", *rows, f"  {fit.total:7.2f} GiB  of {limit:.2f}"]


def verdict(fit: Fit, limit: float) -> str:
    """One word."""
    return "fits" if fit.total <= limit else "-"


def refusal(plan: Plan) -> str:
    """What to do when memory is too small."""
    missing = (
        f"{plan.chosen.total:.1f} GiB are needed by estimate, and there are {plan.card.memory:.1f}: this does not fit"
    )
    enough = [name for name, fit in plan.ladder if fit.total <= plan.card.memory]
    if enough and not plan.config.hardware.fit:
        return f"{missing}. Set hardware.fit to true, or change what --dry-run lists down to: {enough[0]}."
    return f"{missing}, whatever is changed: lower data.resolution, or train a Control-LoRA."


def duration(hours: float) -> str:
    """In a unit that suits."""
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
