"""A system on a live cluster, through the API server alone: found, never started; harmed by changes to objects.

What lives here: credentials, inventory (slots bound to pods), what the cluster can do for a fault, mechanisms,
preflight, reach. What must not: undoing (`stormdrill.cluster` does, for runner and watchdog), or decisions.
"""
