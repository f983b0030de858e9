"""One module a command or a family of commands, imported when it is called.

What lives here: options, arguments, and calls of `stormdrill.api`. What must not: top-level imports of anything
heavier than click; layout of what is printed (that is `cli.terminal`, `cli.table`, `cli.report`).
"""
