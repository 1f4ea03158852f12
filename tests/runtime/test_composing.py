"""What is composed in the midst of a call leaves the call as it was."""

from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.utils import JobRuntime

from vae.runtime import composing


def test_a_call_keeps_its_name_and_goes_on_composing() -> None:
    """Jobs of a sweep may be named by it: hydra.sweep.subdir='${hydra.job.name}_${hydra.job.num}'."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="run"):
        assert composing.made_to_fit(["experiment=vae", "objective=sse"]) == ["~objective.sigma2"]
        assert JobRuntime.instance().get("name") == "run"
        assert compose("config", ["objective=sse"]).objective.name == "sse"
