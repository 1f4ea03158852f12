"""The command line of the report."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from vae.report import page, runs
from vae.runtime.terminal import log_to_stderr, printable, show


def main() -> None:
    log_to_stderr()
    about = "Compare runs in one self-contained page."
    parser = argparse.ArgumentParser(prog="python -m vae.report", description=about)
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="a run, or a directory of runs")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where the report goes (default: the first DIR)")
    parser.add_argument("--title", help="the heading of the page")
    arguments = parser.parse_args()
    for directory in arguments.directories:
        if not directory.is_dir():
            stop(f"{directory}: no such directory; name a run directory or a directory of runs")
    found = runs.find(arguments.directories)
    if not any(run.config or run.record or run.curves for run in found):
        where = ", ".join(map(str, arguments.directories))
        stop(f"{where}: no run in it (looked for .hydra/config.yaml and result.json)")
    output = arguments.output or arguments.directories[0]
    title = arguments.title or page.heading(found)
    try:
        show(str(page.write(found, output, title)))
    except OSError as error:
        stop(f"--output={output}: cannot be written to ({error.strerror or error})")


def stop(why: str) -> NoReturn:
    sys.exit(printable(why))


if __name__ == "__main__":
    main()
