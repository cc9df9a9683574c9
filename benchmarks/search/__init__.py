"""How fast a search finds a good configuration: samplers and pruners on recorded learning curves, in virtual time.

    python -m benchmarks.search --task FILE.npz --workers 8,64 --seeds 10 --json OUT

In reading order: `task` (recorded or computed curves as something to search), `simulation` (asynchronous workers on a
virtual clock), `optuna_searcher` and `methods` (what is compared), `peers` (methods of other packages, by way of
`programs/`), `figures` (what came of it), `__main__` (the command); `trainings` and `record` make the recordings in
`tasks/`.
"""
