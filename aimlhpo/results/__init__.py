"""What people read of a study: results.csv, best.yml, how it is, and the report. All is made anew from the storage.

`best` ranks trials, says what they changed in the model YAML, and writes best.yml; `table` writes results.csv together
with it, and keeps both fresh while trials run; `status` reads how the study is, with its agents, jobs and failures.
`confirmation` compares configurations that were trained again, and decides which one `best` follows; `export` writes
what is needed to train one elsewhere. Nothing here is ever read back as the truth. `worker_log` keeps the log of each
worker within its bound.

`report` reads what the search has found, as plain data; `figures` draws it, with plotly for the page and with
matplotlib for files; `page` makes one HTML file of both, from the template `page.html`; `opened` is what
`aimlhpo.open_study` returns. plotly, matplotlib and Jinja2 come with the extra `report`, and are imported where they
are used.

This room may import the ledger and everything below it. It runs in commands, in their main thread, and in an agent's
storage thread, which uses `ResultsWriter`.
"""
