"""The command line: words in, exit code out.

What lives here: commands, their words and their help; the terminal's pictures. What must not: decisions, I/O on
the system under test, heavy imports at the top (each command imports what it needs when it is called).
"""
