"""What people read of a study: results.csv, best.yml, how it is, and the report. All is made anew from the storage.

`best` ranks trials, says what they changed in the model YAML, and writes best.yml; `table` writes results.csv together
with it, and keeps both fresh while trials run; `status` reads how the study is, with its agents, jobs and failures;
`report` draws what the search has found; `confirmation` compares configurations that were trained again, and decides
which one `best` follows; `export` writes what is needed to train one elsewhere. Nothing here is ever read back as the
truth. `worker_log` keeps the log of each worker within its bound.

This room may import the ledger and everything below it. It runs in commands, in their main thread, and in an agent's
storage thread, which uses `ResultsWriter`.
"""
