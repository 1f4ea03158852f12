"""The command line: `python -m benchmarks [SECTION ...]`, and `python -m benchmarks render`."""

import argparse
from pathlib import Path

from benchmarks import render
from benchmarks.options import RESULTS, Options, find_mnist
from benchmarks.rounds import read


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure SECTIONs (default: all), print their tables, fill those of docs/performance.md. A section "
        "that was interrupted is resumed; one that is complete is kept.",
    )
    defaults = Options()
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"{', '.join(render.SECTIONS)}, or render: measure nothing"
    )
    parser.add_argument("--root", help="directory of full MNIST as torchvision has it (default: $MNIST_ROOT, or data/)")
    parser.add_argument("--dataset", choices=["auto", "mnist", "mnist5k"], default="auto", help="of throughput")
    parser.add_argument("--rounds", type=int, help="default: each section's own")
    parser.add_argument("--threads", type=int, default=defaults.threads, help=f"default: {defaults.threads}")
    parser.add_argument("--scratch", type=Path, default=defaults.scratch, help="directory for large files")
    parser.add_argument("--large", type=float, default=defaults.large, help="GiB of the data that exceed memory")
    parser.add_argument("--before", type=Path, metavar="DIR", help="of sweep: a checkout to compare with")
    parser.add_argument("--results", type=Path, help="where the records go (default: benchmarks/results)")
    parser.add_argument("--fresh", action="store_true", help="measure again what is complete")
    parser.add_argument("--smoke", action="store_true", help="a few steps of each, to see that all works")
    given = parser.parse_args()
    for name in given.sections:
        if name not in (*render.SECTIONS, "render"):
            parser.error(f"{name}: no such section; there are {', '.join(render.SECTIONS)} and render")
    root = find_mnist(given.root)
    if root is None and (given.root or given.dataset == "mnist"):
        parser.error("no MNIST there (looked for MNIST/raw/train-images-idx3-ubyte): see --root")
    before = given.before and given.before.expanduser().resolve()
    if before and not (before / "run.py").is_file():
        parser.error(f"--before {given.before}: no checkout of this project (looked for run.py)")
    options = Options(
        root=root,
        dataset=given.dataset,
        rounds=1 if given.smoke else given.rounds,
        threads=given.threads,
        results=given.results or (RESULTS / "smoke" if given.smoke else RESULTS),
        scratch=given.scratch,
        large=given.large,
        before=before,
        fresh=given.fresh,
        smoke=given.smoke,
    )
    if "render" not in given.sections:
        run(given.sections or list(render.SECTIONS), options)
    if options.results == RESULTS:
        for path in render.PAGES:
            path.write_text(render.page(path.read_text(), RESULTS))


def run(sections: list[str], options: Options) -> None:
    for name in sections:
        render.SECTIONS[name].measure(options)
        content = read(options.results, name)
        if content is not None:
            print(f"\n{name}\n\n{render.section(name, content)}\n", flush=True)
    print(f"{render.goals(options.results)}\n\nrecords: {options.results}", flush=True)


if __name__ == "__main__":
    main()
