"""One failure mode a file, 30 to 120 lines: what to do and its undo, as data.

A fault asks for a capability (`stormdrill.ports`), never for a product. It never sleeps, retries or keeps time.
"""
