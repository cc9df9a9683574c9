"""All that can be known before a GPU is spent. Every check gives `Problem`s: where, what was found, what is legal.

Runs in the main thread of the command, before anything is started or submitted; nothing here changes anything that
stays. May import every room but cli. In reading order: settings (from the files to a checked Config) with parameters,
check (what needs the storage, the cluster or the objective) with samplers, and json_schema (the same keys for editors
and the reference).
"""
