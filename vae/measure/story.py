"""What is said of a run at its end, from its flat record: what it is, on what evidence, why, what happened on the way.
No torch. A sentence says what it rests on: measured, predicted (by the closed form) or tested (by twins)."""

from collections.abc import Mapping
from typing import Any

from vae.config import schema
from vae.measure import advice
from vae.measure.setting import Setting
from vae.measure.verdict import DEAD, FEW, OPEN, below
from vae.measure.written import number

_WHAT = {
    "alive": "The code is alive.",
    "partly_collapsed": "The code is alive in part.",
    "alive_on_paper": "The code is alive on paper: it is paid for, and the decoder makes less of it than it costs.",
    "collapsed": "The posterior has collapsed: every code says the same, and so does every image made from the prior.",
    "deterministic": "This is an autoencoder in effect.",
    "decoder_ignores_code": "The decoder ignores the code, although the encoder writes one.",
    "undecided": "Whether the decoder uses the code cannot be told from these images; measure more of them.",
    "unfinished": "The run has not done its learning, so nothing is said of its code or of causes.",
}


_DRAWN = "The posterior has collapsed: every code says the same, and images differ by the chance in their pixels alone."


def explain(
    config: Setting,
    record: Mapping[str, Any],
    verdict: str,
    reason: str,
    cause: str | None,
    tested: str | None = None,
) -> str:
    """A few sentences on a finished run. `tested`: what its twins have shown, in place of what is predicted."""
    if config.model.posterior == "none":
        return f"There is no code to judge: {reason}. This is what the decoder can do without one."
    drawn = bool(record.get("one_step"))
    what = _DRAWN if verdict == "collapsed" and drawn else _WHAT[verdict]
    said = [what, f"{reason[:1].upper()}{reason[1:]}."]
    if advice.not_begun(record):
        left = 1 - record["explained_variance"]
        said.insert(
            0,
            f"The KL term never began: {_giver(config)} gave it no weight in {record['steps']} steps, at "
            f"whose end {left:.1%} of the variance were left.",
        )
    elif record["kl_weight"] < record["final_kl_weight"] and record["max_kl_weight"] < record["final_kl_weight"]:
        said.append(f"The schedule has reached KL weight {record['kl_weight']:.3g} of {record['final_kl_weight']:.3g}.")
    if verdict in OPEN:
        return " ".join(said)
    if config.train is not None and record.get("test_images", FEW) < FEW:  # vae.diagnose notes it by itself
        said.append(f"So it is on {record['test_images']} test images, which are few.")
    if verdict == "deterministic":
        said.append(
            f"Mu runs from {record['mu_min']:.3g} to {record['mu_max']:.3g}, and codes from the prior need not be like "
            "those that the decoder has seen."
        )
    why = tested or _why(config, record, verdict, cause)
    said += [sentence for sentence in (why, _context(config, record, verdict)) if sentence]
    said += _events(config, record, verdict)
    if verdict not in DEAD and advice.mixture_is_nearer(record):
        said.append(_samples(record))
    return " ".join(said)


def _samples(record: Mapping[str, Any]) -> str:
    prior, mixture, real = (f"{record[f'{kind}_coverage']:.0%}" for kind in ("sample", "mixture", "real"))
    return (
        f"Measured: images of codes from the prior are near to {prior} of the test images, those of a mixture that is "
        f"fitted to the codes to {mixture} (training images: {real})."
    )


def _giver(config: Setting) -> str:
    """What says how much weight the KL term has."""
    key, _ = config.schedule()
    return f"anneal={config.anneal.name}" if key == "anneal" else f"cure={config.cure.name}"


def _why(config: Setting, record: Mapping[str, Any], verdict: str, cause: str | None) -> str:
    weight, edge, kld = record["max_kl_weight"], record["predicted_collapse_weight"], record["predicted_kld"]
    if verdict in DEAD and cause is None and (unknown := advice.why_open(config, record)):
        return f"{unknown}."
    if verdict in DEAD and weight == 0:
        return "No KL term can have caused this, its weight was 0 throughout: the network itself is stuck."
    if cause == "optimiser":
        unseen = ", or has hardly begun, which cannot be seen from here" if record["steps"] is None else ""
        return (
            f"Predicted: at KL weight {weight:.3g} {number(kld)} nats are to be had in "
            f"{_dimensions(record)}, so the objective does not ask for this; the optimiser got "
            f"stuck{unseen}."
        )
    little = ""
    if advice.has_little_to_say(config, record):
        little = (
            f" There may be little for a code to say: a PCA of {config.model.latent_dim} dimensions leaves an MSE of "
            f"{number(record['pca_mse'])}, about the pixel variance that is given."
        )
    if cause == "objective" and kld == 0:
        when = (
            ""
            if record["kl_weight"] == weight
            else f", which the schedule reached before it went back to {record['kl_weight']:.3g}"
        )
        return (
            f"Predicted: at KL weight {weight:.3g}{when}, the collapsed state is stable (from {edge:.3g} on): no small "
            f"step away from it pays. Whether a better state lies far from it, only a test can tell.{little}"
        )
    if cause == "objective":
        return (
            f"Predicted: at KL weight {weight:.3g} the objective leaves no more than {number(kld)} nats to be had, in "
            f"{_dimensions(record)}{'.' if little else ': its scale is what keeps the code small.'}{little}"
        )
    own_loss = config.cure.ends_with_own_loss and kld is not None and not record.get("one_step")
    if own_loss and verdict in (*DEAD, "partly_collapsed"):
        return (
            f"Predicted: without the cure {number(kld)} nats are to be had at KL weight {weight:.3g}. "
            f"cure={config.cure.name} minimises a loss of its own, for which there is no prediction: whether it asks "
            "for this, only a run without it can tell."
        )
    if verdict == "partly_collapsed":
        return (
            f"Predicted: at KL weight {weight:.3g} {number(kld)} nats are to be had, so the objective does not ask for "
            "this. Whether the optimiser got stuck or the network can do no better, only a test can tell."
        )
    if verdict in DEAD and record.get("one_step"):
        gain = record["gain"]
        alone = "" if gain is None else f", and its loss lies {below(gain)} that of a constant image"
        return (
            f"The decoder predicts pixels from pixels{alone}: it may need no code. explain= tells whether that is so, "
            "or it cannot use one, or the optimiser got stuck."
        )
    if verdict in DEAD and kld is None:
        return "There is no prediction for this objective: only a test can tell the cause."
    if verdict in DEAD:
        return (
            f"Predicted: {number(kld)} nats are to be had, and as many are paid, for a code that is not read: only a "
            "test can tell why."
        )
    return ""


def _dimensions(record: Mapping[str, Any]) -> str:
    count = record["predicted_active_units"]
    return f"{count} dimension" if count == 1 else f"{count} dimensions"


def _context(config: Setting, record: Mapping[str, Any], verdict: str) -> str:
    """What the numbers are to be held against."""
    if verdict in DEAD:
        return ""
    explained, pca = record["explained_variance"], record["pca_mse"]
    dims = config.model.latent_dim
    overfit = _overfit(config, record, verdict)
    if record.get("one_step"):
        return f"Each pixel from those before it is predicted with MSE {number(record['mse'])}.{overfit}"
    said = f"It explains {explained:.1%} of the variance (MSE {number(record['mse'])})"
    if pca is not None:
        said += f"; a PCA of {dims} dimensions, which pays no KL, has MSE {number(pca)}"
    if advice.worse_than_linear(config, record):
        said += (
            f". That is worse than a linear VAE: its loss lies {below(record['gain'])} that of a constant image, a "
            f"linear one's would lie {below(record['predicted_gain'])}"
        )
    elif record["max_kl_weight"] == 0 and pca is not None and record["mse"] > 1.01 * pca:
        said += ": it is worse than the PCA"
    return f"{said}.{overfit}"


def _overfit(config: Setting, record: Mapping[str, Any], verdict: str) -> str:
    """Where test images lack much of what training images have gained, each beside a constant image."""
    gains = advice.overfit(config, record)
    if gains is None:
        return ""
    train, test = gains
    said = (
        f" It overfits: training images have gained {number(train)} nats over a constant image, test images "
        f"{number(test)} (said where these lack {config.evaluation.thresholds.overfit:.0%} or more)."
    )
    if verdict == "alive_on_paper" and advice.by_heart(config, record):
        said += " No cure asks for this code: what it says of training images does not carry over to others."
    return said


def _events(config: Setting, record: Mapping[str, Any], verdict: str) -> list[str]:
    """What happened on the way, in its order, in words that fit the verdict."""
    said: list[tuple[int, str]] = []
    began, dip, out = (record[f"{name}_at_step"] for name in ("kl_began", "dipped", "collapsed"))
    if isinstance(config.schedule()[1], schema.DelayedKL) and began is not None:
        said.append((began, f"The KL term began at step {began}."))
    if dip is not None:
        said.append(
            (
                dip,
                f"KL dipped from {number(record['dipped_from_kld'])} to {number(record['dipped_to_kld'])} nats at step "
                f"{dip}, and was back at {number(record['dip_over_kld'])} by step {record['dip_over_at_step']}.",
            )
        )
    if out is not None and (record["recovered_at_step"] is not None or verdict in DEAD):
        said.append((out, _collapse(record)))
    return [sentence for _, sentence in sorted(said)]


def _collapse(record: Mapping[str, Any]) -> str:
    out, back, before = (record[name] for name in ("collapsed_at_step", "recovered_at_step", "collapsed_from_kld"))
    fell = "The code was collapsed from the start" if before is None else f"The code collapsed at step {out}"
    if before is not None and record["collapsed_at_weight"]:
        fell += f", at KL weight {record['collapsed_at_weight']:.3g}"
    if back is not None:
        kld = record["recovered_to_kld"]  # none of a point, whose KL is infinite
        return f"{fell}, and recovered by step {back}" + ("." if kld is None else f", with a KL of {number(kld)} nats.")
    return (
        f"{fell}, and has not recovered."
        if before is None
        else f"{fell} (KL before: {number(before)} nats), and has not recovered."
    )
