"""From two YAML files and the command line to one typed `Config`.

Runs in the main thread of the command; agents read the copy beside the study. May import errors, objective and
space; never a sampler, a storage or optuna. In reading order: yaml (text to data), echo_opt (keys of files that were
written for echo-opt), overrides (what the command line changes), resolve (what keys leave open),
schema with fields and optuna_section (what each key may hold), sbatch_options, load (all of it together), and command
(a program as the objective); and paths (where the files of a study lie).
"""
