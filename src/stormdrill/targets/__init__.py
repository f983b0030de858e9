"""Where systems run: process today; docker and kubernetes to come. Each offers capabilities.

What lives here: starting, inventory, state, and binding an undo to what is really there. What must not: decisions.
"""
