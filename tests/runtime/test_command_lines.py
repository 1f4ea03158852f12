"""Command lines: what is written is what Hydra and a shell read."""

import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from vae.runtime import commands

WORDS = ["gaussian", "outputs/2026-01-02/a_run-1", "e5", "infinity", "on", "yes", "truely", "x.y"]
OTHERS = ["true", "NULL", "nan", "Inf", "1e5", "a b", "it's", "a\\", "", "~x", "日本", "a,b", "[1]", "a=b", "x\n"]


@pytest.mark.parametrize("value", [*WORDS, *OTHERS, True, None, 2, 0.1, ["gaussian", "1", 2]])
def test_a_value_is_read_as_it_was(value: Any) -> None:
    (read,) = OverridesParser.create().parse_overrides([f"key={commands.written(value)}"])
    found = read.value()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("word", WORDS)
def test_a_plain_word_needs_no_quotes(word: str) -> None:
    line = commands.run([f"model.posterior={commands.written(word)}"])
    assert line == f"python run.py model.posterior={word}"
    assert shlex.split(line)[-1] == f"model.posterior={word}"
