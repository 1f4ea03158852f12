"""The end of what a call has trained: its report, and of several runs a table on the terminal."""

import logging
import os
from pathlib import Path

from vae.runtime import directory as names
from vae.runtime.terminal import show

log = logging.getLogger(__name__)


def write_report(directory: Path) -> None:
    """report.html of the run or the runs in `directory`; of a sweep a table too, and where the report is. The runs are
    there whatever becomes of their report: what goes wrong is said, and raises nothing."""
    try:
        from vae.report import measures, page, runs
        from vae.report.groups import together

        found = runs.find([directory])
        path = page.write(found, directory, page.heading(found))
        if (directory / names.SWEEP).is_file():
            show(f"\n{measures.plain(together(found))}\n\nreport: {os.path.relpath(path)}")
    except Exception as error:
        log.error("report: not written (%s: %s)", type(error).__name__, error, exc_info=error)
