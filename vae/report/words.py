"""What the report's words mean, and what is said of a run in one sentence: for a reader who has never heard of a
posterior that collapses."""

import math
from collections.abc import Mapping
from typing import Any

from vae.measure.verdict import DEAD, OPEN
from vae.measure.written import number
from vae.report.groups import Difference
from vae.report.runs import Run
from vae.runtime import commands

GLOSSARY = {
    "code": "The short list of numbers, z, that the encoder writes for an image and the decoder reads to draw it "
    "again. "
    "Each number of it is called a latent dimension.",
    "posterior": "The encoder's answer for one image, q(z|x): not one code but a small cloud of likely ones, in each "
    "dimension a bell curve with its middle at mu and a width of sigma.",
    "prior": "The one bell curve, p(z), middle 0 and width 1 in each dimension, that all clouds together are meant to "
    "fill. New "
    "images are made by drawing a code from it.",
    "KL": "How far a posterior is from the prior, in nats: what an image's code costs, and an upper bound on how much "
    "it says "
    "about its image. At 0 each image has the prior for its posterior, and its code says nothing.",
    "nats": "A unit of information, like bits: one nat is 1.44 bits. A code that told ten digits apart would need 2.3.",
    "active unit": "A latent dimension whose mu differs from image to image (with a variance above 0.01).",
    "KL weight": "By how much the KL counts in the loss, beta. At 1 the loss is minus the ELBO.",
    "ELBO": "What a VAE is trained to raise: how well images are drawn from their codes, less what the codes cost. A "
    "lower "
    "bound on log p(x), in nats.",
    "t": "KL weight times sigma^2, the variance of a pixel that the loss assumes. A direction in which the data vary "
    "by "
    "less than t is not worth its code: a linear VAE gives it up, and by a closed form one knows so before training.",
    "MSE": "Squared error of a pixel between an image and what is drawn from its code. Once with the code drawn from "
    "the "
    "posterior, as in training, and once with z = mu.",
    "linear VAE": "The simplest VAE, whose best state is known before anything is trained, from a formula: its closed "
    "form. What it would keep of these images was to be had; a network whose code says nothing all the same got stuck.",
    "mutual information": "How many nats a code tells about which image it came from. The estimate cannot exceed the "
    "logarithm of the number of test images, its ceiling.",
    "collapse": "The KL is 0 and the decoder does not read the code: it draws the same average picture whatever the "
    "image was. One that predicts pixels from pixels draws pictures that differ by chance alone.",
}

OPTIONS = {  # of conf/, in words that complete "it has ..."
    "anneal=constant": "the full KL term from the first step",
    "anneal=no_kl": "no KL term at all",
    "anneal=delayed": "a KL term that waits until images are drawn well, and then grows",
    "anneal=linear": "a KL term that grows from 0 in a straight line",
    "anneal=sigmoid": "a KL term that grows from near 0 along an S",
    "anneal=cyclical": "a KL term that grows from 0 several times over",
    "model=conv_vae": "a convolutional network",
    "model=mlp_vae": "a small fully connected network",
    "model=linear_vae": "a linear network",
    "model=ae": "the convolutional network without a KL term",
    "model=pixelcnn_vae": "a decoder that sees the pixels before the one it draws",
}

CAUSES = {
    "optimiser": "the training got stuck where the code says nothing, though a better state exists (cause: optimiser)",
    "objective": "the objective itself asks for it: at this KL weight a code costs more than it saves",
    "decoder": "the decoder needs no code: it predicts pixels well enough from other pixels",
}
RESTS_ON = {
    "predicted": "predicted, by a formula for the simplest VAE",
    "tested": "tested, with twins of the run that differ in one thing",
}


def difference(found: Difference) -> str:
    """A thing in which a run differs from another, in words where there are some."""
    said = OPTIONS.get(f"{found.key}={found.value}")
    setting = f"{found.key}={found.value} instead of {found.instead}"
    return f"{said} ({setting})" if said else setting


def sentence(run: Run) -> str:
    """What became of the code, on what evidence; empty where there is no verdict."""
    record, verdict = run.record, run.verdict
    if verdict is None:
        return ""
    if has_no_code(run):
        return "There is no code to judge: the decoder gets none (model.posterior=none)."
    kld, units = _said(record, "kld"), _units(record)
    drawn = "the decoder draws the same average picture whatever the image was"
    if record.get("one_step"):
        drawn = "the pictures that the decoder draws differ by the chance in their pixels alone"
    swap, noise = _said(record, "swap_gap"), 3 * run.number("swap_gap_error")
    unread = (
        f"does as well, to within {number(noise)} nats" if noise >= run.number("swap_gap") else f"loses {swap} nats"
    )
    tell = {
        "collapsed": f"The code says nothing: KL {kld} nats, {units}, so {drawn}.",
        "decoder_ignores_code": f"The encoder writes a code (KL {kld} nats, {units}), and the decoder does not read "
        f"it: with another image's code it {unread}.",
        "partly_collapsed": f"The code says little: KL {kld} nats in {units}, where about "
        f"{_said(record, 'predicted_kld')} nats were to be had.",
        "alive": f"The code is used: it carries {kld} nats in {units}, and with another image's code the decoder would "
        f"lose {swap} nats.",
        "alive_on_paper": f"The code is paid for and not worth it: it costs {_paid(run)}, and saves at most "
        f"{_saved(run)} of log p(x|z).",
        "deterministic": f"An autoencoder in effect: its code is a point rather than a cloud (sigma "
        f"{_said(record, 'sigma_mean')} on average), spread over mu from {_said(record, 'mu_min')} to "
        f"{_said(record, 'mu_max')}, so codes from the prior need not mean anything to its decoder.",
        "undecided": f"Whether the code is used cannot be told from {_said(record, 'test_images')} test images: with "
        f"another image's code the decoder {unread}.",
        "unfinished": "It was still learning at its last step, so nothing is said of its code.",
    }
    return tell.get(verdict, f"{verdict}: KL {kld} nats.")


def why(run: Run) -> str:
    """The cause of a dead code and what that rests on; empty where nothing is dead."""
    if run.verdict not in DEAD or has_no_code(run):
        return ""
    test = f"{commands.explain(run.directory)} tests it" if run.config else "only a test can tell"
    cause, rests = str(run.record.get("cause")), str(run.record.get("cause_rests_on"))
    if cause not in CAUSES:
        return f"Why cannot be told from measures alone: {test}."
    if rests == "predicted" and run.number("max_kl_weight") == 0:  # the formula is of the KL term's doing
        return f"Why: the training got stuck, and no KL term can have caused it, its weight was 0 throughout; {test}."
    had = run.number("predicted_kld")
    better = f": a code worth {number(had)} nats was to be had" if cause == "optimiser" and had > 0 else ""
    rests_on = RESTS_ON.get(rests, rests) + (f"; {test}" if rests == "predicted" else "")
    return f"Why: {CAUSES[cause]}{better}. This is {rests_on}."


def has_no_code(run: Run) -> bool:
    """Whether its decoder gets none, by its configuration."""
    return run.config.get("model.posterior") == "none"


def _paid(run: Run) -> str:
    """What the verdict held against `_saved`: the KL term of the loss."""
    weight = run.number("kl_weight")
    scale = "" if weight == 1 else f" at KL weight {weight:.3g}"
    return f"{number(weight * run.number('kld'))} nats{scale}"


def _saved(run: Run) -> str:
    return number(min(filter(math.isfinite, map(run.number, ("swap_gap", "cut_gap"))), default=math.nan))


def on_the_way(run: Run) -> str:
    """What happened to the code while it trained, where something is said of the code, and which step's model it is,
    where early stopping has kept an earlier one's; else empty."""
    record = run.record
    said: list[tuple[float, str]] = []
    best, steps = record.get("best_step"), record.get("steps")
    if best is not None and best != steps:
        kept = f"Kept is the model of step {best} of {steps}, the best by its validation images."
        said.append((math.inf, kept))
    if run.verdict in OPEN:
        return " ".join(sentence for _, sentence in said)
    dip, back = record.get("dipped_at_step"), record.get("dip_over_at_step")
    if dip is not None:
        fell = f"Its KL fell to {_said(record, 'dipped_to_kld')} nats at step {dip}"
        said.append((dip, f"{fell} and came back by itself by step {back}."))
    out, recovered = record.get("collapsed_at_step"), record.get("recovered_at_step")
    if out is not None and recovered is not None:
        said.append((out, f"The code collapsed at step {out} and had recovered by step {recovered}."))
    elif out is not None and run.verdict in DEAD:
        said.append((out, f"The code had collapsed by step {out} and did not recover."))
    return " ".join(sentence for _, sentence in sorted(said))


def _units(record: Mapping[str, Any]) -> str:
    count, of = record.get("active_units"), record.get("latent_dim")
    return f"{count} of {of} active {'unit' if of == 1 else 'units'}"


def _said(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "an unknown number of" if key.endswith("kld") else "?"
    return number(value)
