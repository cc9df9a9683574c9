"""The process that runs a job's slots: it owns the job's only connection to the storage, and its workers.

agent (main thread)   the loop, and when to stop
  |-- opening         loads the study, and makes the ledger
  |-- employment      who is given which trial
  |-- hearing         what the workers say, and how they die
  |-- endings         what becomes of a trial that is over
  |-- desk            gathers what is for the staff, and runs what follows from it
  |-- staff
  |     |-- clerk         one thread that does all storage work in order, and waits through outages
  |     |     |-- bookkeeper    a turn: results, beginnings, claims, reports of all seats, in one write
  |     |     `-- preparing     samples what was claimed
  |     `-- samplers      one thread that asks the sampling process, where there is one
  |-- lease           one thread that keeps the agent known as alive
  |-- workforce       starts the workers
  |     `-- template      the process that has imported the objective, of which they are forked
  `-- worker processes    one per slot (aimlhpo.worker)
"""
