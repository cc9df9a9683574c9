"""The study in its storage: opened by URL, read, and written to in batches.

This room imports `errors`, `processes`, `objective`, `space` and `config`. It knows of no sampler, pruner or
scheduler of trials: who runs which trial is decided by the ledger, which speaks to a storage through `base`.

Every process that needs the study opens it itself: the command, each agent (in its storage thread alone), and the
process that samples for an agent. Workers open none.

Files in reading order: `base` (operations and questions, and the storage as an agent uses it), `open` (the kinds of
storage), `optuna_internals` (which of Optuna's private names are used, and whether they may be), `sql` and `journal`
with `journal_file` and `journal_snapshot` (storages faster than Optuna's), `study` (made, loaded, compared with the
configuration), `attributes` (what aimlhpo keeps beside Optuna's own fields, and where), `trials` (records and
numbers), `retry` (outages, and the threads that wait for their end), `locks` (file locks).
"""
