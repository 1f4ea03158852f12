"""What the lab costs beside its peers: `make bench`, or `python -m benchmarks SECTION ...`.

Every measurement is a fresh process, contestants alternate (A B C A B C ...), what counts is the median over the rounds
of each round's ratio. Raw measurements go to results/SECTION.json as they come, so that an interrupted section resumes;
the tables of docs/performance.md are made from those files and never typed. This process imports no torch: a child's
peak memory starts from what its parent held."""
