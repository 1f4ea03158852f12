"""From measures to answers: is the code alive, when did it go out, and why. No torch.

The KL term alone does not tell: an encoder may pay for codes that the decoder never reads, and an autoencoder's KL is
huge. So a verdict starts from whether the decoder uses the code: what swapping the codes between images costs."""

import math
from dataclasses import dataclass
from typing import Any

from vae.config.schema import Thresholds

DEAD = ("collapsed", "decoder_ignores_code")  # verdicts: the decoder does not use the code


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on; nats per image unless the name says otherwise."""

    kld: float
    sse: float
    reconstruction_gap: float  # SSE with another image's code less SSE with its own
    active_units: int
    latent_dim: int
    active_sigma: float  # mean sigma over images and active dimensions (over all, where none is active)
    active_spread: float  # E[z_j^2] over images and those dimensions: 1 where q(z) fits the prior
    predicted: int | None  # dimensions that a linear VAE would keep; None: the theory does not apply


@dataclass(frozen=True)
class Verdict:
    name: str  # alive, partly_collapsed, collapsed, deterministic, decoder_ignores_code
    reason: str  # a sentence with the measures and the thresholds that they were held against
    cause: str | None = None  # of what is wrong: optimiser, objective, or None where it cannot be told


def judge(evidence: Evidence, limits: Thresholds) -> Verdict:
    e = evidence
    cost = e.reconstruction_gap / e.sse if e.sse > 0 else math.inf
    shown = round(cost, 3) + 0.0  # no minus zero
    swap = f"swapping the codes between images makes the squared error {shown:.1%} larger"
    units = f"{e.active_units} of {e.latent_dim} dimensions are active"
    cause = None if e.predicted is None else "objective" if e.predicted == 0 else "optimiser"
    if not math.isfinite(cost):
        cost = math.inf
    if cost < limits.used_gap:
        unused = f"{swap} (used from {limits.used_gap:.1%} on), so the decoder does not use the code"
        if e.kld < limits.collapsed_kld:
            return Verdict("collapsed", f"KL is {e.kld:.4f} nats (below {limits.collapsed_kld:g}) and {unused}", cause)
        return Verdict("decoder_ignores_code", f"KL is {e.kld:.4g} nats, yet {unused}; {units}", cause)
    misfit = max(e.active_spread, 1 / e.active_spread) if e.active_spread > 0 else math.inf
    if e.active_sigma < limits.deterministic_sigma and misfit > limits.prior_misfit:
        narrow = (
            f"sigma of the active dimensions is {e.active_sigma:.3g} on average, their E[z^2] {e.active_spread:.3g}"
        )
        return Verdict(
            "deterministic",
            f"{narrow} (below {limits.deterministic_sigma:g}): each image has a point for a code; {units}",
        )
    expected = e.latent_dim if e.predicted is None else e.predicted
    if e.active_units < limits.partly_fraction * expected:
        wanted = f"fewer than {limits.partly_fraction:g} of the {expected} that "
        wanted += "there are" if e.predicted is None else "a linear VAE would keep"
        return Verdict("partly_collapsed", f"{units}, {wanted}; {swap}", None if e.predicted is None else "optimiser")
    return Verdict("alive", f"KL is {e.kld:.3g} nats, {units}, and {swap}")


@dataclass
class Watch:
    """Notices collapse and recovery as they happen.

    The code counts as out from when the KL of the training batches falls below `collapsed_kld`, or below
    `dip_fraction` of the highest it has been since the KL weight last changed (a fall that the weight itself causes is
    none); and while an evaluation finds that the decoder does not use it. It is back when KL is at twice its lowest
    since then, and at twice `collapsed_kld`, and the last evaluation finds it used. With KL weight 0 only the
    evaluations count."""

    limits: Thresholds
    peak: float = 0.0
    trough: float = 0.0  # while `low`
    weight: float | None = None
    low: bool = False
    unused: bool = False
    out: bool = False
    collapsed_at: int | None = None  # of the last collapse
    recovered_at: int | None = None  # None: not since then

    def training(self, step: int, kld: float, weight: float) -> str | None:
        """Learn the KL of the last training batches; a sentence when something has happened."""
        if weight != self.weight:
            self.peak, self.weight = 0.0, weight
        self.peak = max(self.peak, kld)
        if weight == 0:
            self.low = False
        elif not self.low and kld < max(self.limits.collapsed_kld, self.limits.dip_fraction * self.peak):
            self.low, self.trough = True, kld
        elif self.low:
            self.trough = min(self.trough, kld)
            if kld >= 2 * max(self.trough, self.limits.collapsed_kld):
                self.low, self.peak = False, kld
        return self._changed(step, f"KL {kld:.3g} nats, highest before {self.peak:.3g}")

    def evaluation(self, step: int, verdict: Verdict) -> str | None:
        self.unused = verdict.name in DEAD
        return self._changed(step, verdict.name)

    def _changed(self, step: int, seen: str) -> str | None:
        out = self.low or self.unused
        if out == self.out:
            return None
        self.out = out
        if out:
            self.collapsed_at, self.recovered_at = step, None
            return f"step {step}: the code is out ({seen})"
        self.recovered_at = step
        return f"step {step}: the code is alive again ({seen})"

    def state_dict(self) -> dict[str, float | int | bool | None]:
        names = ("peak", "trough", "weight", "low", "unused", "out", "collapsed_at", "recovered_at")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, float | int | bool | None]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def explain(record: dict[str, Any]) -> str:
    """Three or four sentences on a finished run, from its result.json: what it is, why, what helps, when."""
    verdict, reason = record["verdict"], str(record["reason"])
    said = [_WHAT[verdict] + f" {reason[:1].upper()}{reason[1:]}."]
    dead = verdict in DEAD
    if verdict == "deterministic":
        said.append(
            f"mu runs from {record['mu_min']:.3g} to {record['mu_max']:.3g}, so codes from the prior are not like "
            "those that the decoder has seen, and images made of them mean little."
        )
    if dead and record["kl_weight"] == 0:
        said.append(
            "No KL term can have caused this, its weight is 0: the network itself is stuck. What helps is a lower "
            "train.lr, train.warmup_steps=100, or more steps."
        )
    elif record["cause"] == "objective":
        said.append(
            f"The objective asks for this: t = {record['effective_t']:.4g}, and no direction of the data has more "
            f"variance than {record['largest_eigenvalue']:.4g}. No schedule that ends here helps; it would live below "
            f"KL weight {record['predicted_collapse_weight']:.3g}, or with a pixel variance below "
            f"{record['largest_eigenvalue'] / record['kl_weight']:.3g}."
        )
    elif record["cause"] == "optimiser":
        said.append(
            f"The objective does not ask for this: at t = {record['effective_t']:.4g} a linear VAE would keep "
            f"{record['predicted_active_units']} dimensions, so the optimiser got stuck. What helps is a kinder start: "
            "anneal=delayed, a lower train.lr, or another seed."
        )
    elif dead:
        said.append(
            "The closed form does not cover this objective; to find the cause try anneal=delayed: if the code then "
            "lives at the full KL weight, the optimiser was stuck; if it dies as the weight rises, the objective asks "
            "for it."
        )
    elif record["predicted_active_units"] is not None:
        said.append(
            f"A linear VAE would keep {record['predicted_active_units']} dimensions here, and none from KL weight "
            f"{record['predicted_collapse_weight']:.4g} on."
        )
    if record["kl_weight"] != record.get("final_kl_weight", record["kl_weight"]):
        said.append(f"The schedule has reached KL weight {record['kl_weight']:.4g} of {record['final_kl_weight']:.4g}.")
    if record.get("collapsed_at_step") is not None:
        back = record.get("recovered_at_step")
        until = "and is so still" if back is None else f"and alive again by step {back}"
        said.append(f"The code was out at step {record['collapsed_at_step']} {until}.")
    return " ".join(said)


_WHAT = {
    "alive": "The code is alive.",
    "partly_collapsed": "The code is alive in part.",
    "collapsed": "The posterior has collapsed: every code says the same, and so does every image made from the prior.",
    "deterministic": "This is an autoencoder in effect.",
    "decoder_ignores_code": "The decoder ignores the code, although the encoder writes one.",
}
