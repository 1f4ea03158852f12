"""From measures to a verdict: is the code alive, and if it is not, why. No torch. docs/verdicts.md draws the decision.

The KL term alone does not tell: an encoder may pay for codes that the decoder never reads, and an autoencoder's KL is
huge. So a verdict starts from whether the decoder uses the code: what log p(x|z) loses with another image's code, in
nats. Beyond that a run is held against what could be had: the closed form of vae.measure.prediction."""

from dataclasses import dataclass

from vae.config.schema import Thresholds
from vae.measure.catalogue import Prediction, SplitMeasures
from vae.measure.watch import Trajectory
from vae.measure.written import number, with_error

SURE = 0.00135  # the chance of three standard errors, on one side
FEW = 100  # images, of which the mean of what is lost may hang on a few

DEAD = ("collapsed", "decoder_ignores_code")  # verdicts: the decoder does not use the code
OPEN = ("undecided", "unfinished")  # nothing is said of the code
VERDICTS = ("alive", "partly_collapsed", "alive_on_paper", *DEAD, "deterministic", *OPEN)


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on; nats per image."""

    measured: SplitMeasures
    latent_dim: int
    posterior: str  # model.posterior
    weight: float  # the KL weight that the run has reached
    predicted: Prediction  # at the highest KL weight that the run has had
    gain: float | None  # how far the loss at that weight lies below that of a constant image; None: not known
    steps: int | None  # None: the training was not seen, and is taken for finished
    trajectory: Trajectory
    autoregressive: bool = False  # the decoder predicts pixels from pixels
    own_loss: bool = False  # a cure's loss was minimised, and `predicted` is of the plain one
    own_weight: bool = False  # at a KL weight that is the cure's as well
    stopped: bool = False  # early, or by a learning rate of 0: a loss that still fell says nothing
    cut_gap: float | None = None  # as in FinalMeasures; None: not measured
    cut_gap_error: float = 0.0
    # The same prediction for other images. None: not known
    most_kld: float | None = None  # at most, where `predicted` is of other images than those trained on
    least_kld: float | None = None  # at least: for the test images, along the components of those trained on


@dataclass(frozen=True)
class Verdict:
    name: str  # of VERDICTS
    reason: str  # a sentence with the measures and the thresholds that they were held against
    cause: str | None = None  # of a dead code: optimiser, objective, or None where it cannot be told


def needed_nats(weight: float, limits: Thresholds, autoregressive: bool) -> float:
    """How much log p(x|z) must owe to a code that is used. An autoregressive decoder that is right without a code
    stands, at KL weight 1, exactly at the edge of stability (vae.measure.residuals): whatever its fit has left over is
    then worth a little code, of some tenths of a nat."""
    return max(limits.used_nats, limits.residue_nats if autoregressive else 0.0) * weight


def is_used(measured: SplitMeasures, weight: float, limits: Thresholds, autoregressive: bool = False) -> bool:
    """Whether the decoder uses the code: log p(x|z) with the own code exceeds that with another image's by what is
    needed for each unit of the KL weight, and surely: by three standard errors, or on so many images that it is as
    unlikely a chance. (A loss with KL weight w and pixel variance sigma^2 has the optima of weight 1 and variance
    w sigma^2: there the same gap is 1 / w times as many nats.)"""
    is_sure = measured.swap_gap > 3 * measured.swap_gap_error or measured.swap_gap_p < SURE
    return is_sure and measured.swap_gap > needed_nats(weight, limits, autoregressive)


def judge(evidence: Evidence, limits: Thresholds) -> Verdict:
    e, found, predicted = evidence, evidence.measured, evidence.predicted
    if e.posterior == "none":
        return Verdict("collapsed", "the decoder gets no code, as model.posterior=none asks")
    unfinished = None if e.steps is None else e.trajectory.unfinished(e.steps, limits, e.stopped)
    if unfinished is not None:
        return Verdict("unfinished", unfinished)
    needed = needed_nats(e.weight, limits, e.autoregressive)
    collapsed_kld = max(limits.collapsed_kld, limits.residue_nats if e.autoregressive else 0.0)
    gap = f"{with_error(found.swap_gap, found.swap_gap_error)} nats"
    varies = f"mu varies by more than {limits.active_variance:g}"
    units = f"{found.active_units} of {e.latent_dim} dimensions are active ({varies})"
    if not is_used(found, e.weight, limits, e.autoregressive):
        unread = f"log p(x|z) loses {gap} with another image's code: less than three standard errors"
        if found.swap_gap == found.swap_gap_error == 0:
            unread = "log p(x|z) is the same with another image's code"
        elif needed > 3 * found.swap_gap_error:
            scale = "" if e.weight == 1 else f"{needed / e.weight:g} x KL weight {e.weight:.3g} = "
            unread = f"log p(x|z) loses {gap} with another image's code (used from {scale}{number(needed)} on)"
        if found.test_images < FEW and found.swap_gap > max(needed, found.swap_gap_error):
            images = f"{found.test_images} images are too few to tell"
            return Verdict("undecided", f"KL is {number(found.kld)} nats, {units}; {unread}, and {images}")
        if e.posterior == "dirac":
            name = "decoder_ignores_code" if found.active_units else "collapsed"
            return Verdict(
                name, f"the encoder gives each image a point for a code, {units}, and {unread}", _cause(e, limits)
            )
        if found.kld < collapsed_kld:
            return Verdict("collapsed", f"KL is {number(found.kld)} nats, and {unread}", _cause(e, limits))
        return Verdict("decoder_ignores_code", f"KL is {number(found.kld)} nats, yet {unread}", _cause(e, limits))
    read = f"another image's code would cost {gap} of log p(x|z)"
    point = _why_deterministic(e, limits)
    if point is not None:
        return Verdict("deterministic", f"{point}; {units}, and {read}")
    unpaid = _why_on_paper(e)
    if unpaid is not None:
        return Verdict("alive_on_paper", f"{unpaid}; {units}, and {read}")
    lacking = _what_lacks(e, limits)
    if lacking is not None:
        growing = None if e.steps is None or e.stopped else e.trajectory.growing(found.kld, limits)
        if growing is not None:
            return Verdict("unfinished", growing)
        return Verdict("partly_collapsed", f"{lacking}; {units}, and {read}")
    against = "" if predicted.predicted_kld is None else f" ({number(predicted.predicted_kld)} predicted)"
    return Verdict("alive", f"KL is {number(found.kld)} nats{against}, {units}, and {read}")


def _why_deterministic(e: Evidence, limits: Thresholds) -> str | None:
    """Why each image has a point for a code; None where it has a distribution."""
    found = e.measured
    narrow = f"sigma is at most {number(found.sigma_ratio)} of the spread of mu in each active dimension"
    if not found.active_units:
        narrow = "no dimension varies by enough to be active"
    if e.posterior == "dirac":
        return "the encoder gives each image a point for a code"
    if e.trajectory.max_kl_weight == 0:
        return f"no KL term held the code to the prior (its weight was 0 throughout); {narrow}"
    if found.sigma_ratio < limits.deterministic_sigma and found.active_spread > limits.prior_misfit:
        return (
            f"{narrow} (a point below {limits.deterministic_sigma:g}), and E[z^2] is {number(found.active_spread)} "
            f"there (beyond the prior from {limits.prior_misfit:g} on)"
        )
    return None


def _why_on_paper(e: Evidence) -> str | None:
    """What says that the code costs more than the decoder makes of it: a loss that asks for KL buys it, whether it is
    read or not. None where it pays, or there is no KL term.

    A decoder that gets the same code for all images, or a random image's, gets none of the image: no worse than the
    better of the two is what it could do without a code, so the code saves at most the smaller of the two gaps."""
    gaps = [(e.measured.swap_gap, e.measured.swap_gap_error)]
    if e.cut_gap is not None:
        gaps.append((e.cut_gap, e.cut_gap_error))
    saved, error = min(gaps)
    paid = e.weight * e.measured.kld if e.weight else 0.0
    if paid - saved <= 3 * error:
        return None
    scale = "" if e.weight == 1 else f" at KL weight {e.weight:.3g}"
    return (
        f"the code costs {number(paid)} nats{scale} and saves {_at_most(saved, error)} of log p(x|z), so it is not "
        "worth what is paid for it"
    )


def _what_lacks(e: Evidence, limits: Thresholds) -> str | None:
    """What says that much of the code is missing: little of the KL that a linear VAE would have, and little of what it
    would gain. (A network may gain as much with less KL: where few factors make the data, it packs them better.)"""
    predicted, found = e.predicted, e.measured
    if predicted.predicted_kld is None or predicted.predicted_gain is None or e.gain is None:
        return None
    little = found.kld < limits.partly_fraction * predicted.predicted_kld
    if not (little and e.gain < limits.partly_gain * predicted.predicted_gain):
        return None
    return (
        f"KL is {number(found.kld)} nats (below {limits.partly_fraction:.0%} of the {number(predicted.predicted_kld)} "
        f"predicted), and the loss lies {below(e.gain)} that of a constant image (below "
        f"{limits.partly_gain:.0%} of the {number(predicted.predicted_gain)} predicted)"
    )


def _cause(e: Evidence, limits: Thresholds) -> str | None:
    """Why the code is dead, as far as a formula can say. None where it does not apply."""
    if e.trajectory.max_kl_weight == 0:
        return "optimiser"  # with no KL term a code costs nothing
    kld, least, most = e.predicted.predicted_kld, e.least_kld, e.most_kld
    if kld is None or (e.own_loss and e.own_weight):
        return None
    if kld < limits.little_kld:
        return "objective" if most is None or most < limits.little_kld else None
    if least is not None and least < limits.little_kld:
        return None
    is_stuck = e.measured.kld < kld / 2  # as much KL as predicted is not
    return "optimiser" if is_stuck and not e.own_loss else None


def _at_most(saved: float, error: float) -> str:
    said = with_error(saved, error)
    return f"at most {said}" if saved > 0 else f"nothing ({said})"


def below(nats: float) -> str:
    """A gain in words: a loss that is so many nats lower than another, or higher."""
    return f"{number(abs(nats))} nats {'above' if nats < 0 else 'below'}"
