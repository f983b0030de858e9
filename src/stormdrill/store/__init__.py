"""The run directory: journal and records, the only thing that verdict and review are computed from.

What lives here: formats, reading and appending. What must not: meaning (`core`), processes (`keeper`).
`journal` imports the standard library only, because the keeper writes through it.
"""
