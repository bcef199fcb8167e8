"""Where the work runs: `choose` says which engine, `worker` is the inside of one worker of each."""
