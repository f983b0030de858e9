"""The process that outlives the runner: owns the system's processes, writes the journal, reverts.

Standard library only, besides `store.journal`, `model.undo`, `model.event`, `redact` and `errors`. What lives here:
the process, its protocol, the interpreter of undos, and `client`, the runner's end of the socket. What must not:
anything that knows a fault, an experiment or a verdict.
"""
