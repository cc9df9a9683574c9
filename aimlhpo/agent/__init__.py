"""The process that runs a job's slots: it owns the job's only connection to the storage, and its workers.

In reading order:

agent            Agent: sets everything up; its loop, in the main thread, passes on what comes in
dispatcher       TrialDispatcher: gives trials to slots, hears the workers, deals with how trials end (main thread)
worker_pool      WorkerPool, WorkerSlot, WorkerProcess: the slots and the workers in them (main thread)
packing          Packing: how many trials share a GPU, as measured (main thread)
fork_server      the process that has imported the objective, of which workers are forked (main thread)
storage_client   StorageClient: gathers requests for the storage thread, spreads the answers (main thread)
trial_store      TrialStore: does the requests, a batch in one write (storage thread)
stop_requests    why an agent stops: requests, signals, the end of its job (main thread)
progress         what views show of a running agent (main thread)

The storage thread, and the one that asks the sampling process, are `SerialExecutor`s of `aimlhpo.storage.retry`. Two
more threads belong to others: the lease's (`aimlhpo.ledger.leases`) and the view's. May import the rooms worker,
ledger, results, tracking and those below them; only `aimlhpo.launch` and `aimlhpo.cli` import this one.
"""
