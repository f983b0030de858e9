"""What a run leaves in a cluster so that it mends itself: ledger, Lease, markers, and the watchdog that reads them.

What lives here: the transport to an API server, changes as data with their application and undo, the ledger, the
Lease, and the watchdog. Runner and watchdog use the same code; it runs in a pod of the cluster, so that it imports
the standard library, `model.undo` and `errors` only. What must not: faults, selection, plans, kubeconfigs.
"""
