"""When the keeper carries an undo out though nobody asks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stormdrill.keeper.custody import AGAIN_AT_MOST_S, Held

STATES = st.sampled_from(["armed", "reverting", "reverted", "failed"])


@given(STATES, st.booleans(), st.booleans(), st.booleans(), st.integers(1, 1000), st.floats(0, 1e6))
def test_what_is_open_and_not_seen_to_be_gone_is_due_at_its_expiry_and_then_again_and_again(
    state: str, late: bool, there: bool, gone: bool, tries: int, tried_s: float
) -> None:
    held = Held("f/x", "f", "x", (), 100.0, state, late=late, there=there, gone=gone, tries=tries, tried_s=tried_s)
    if state == "armed":
        assert held.due_s == 100.0
    elif state == "reverting" or gone or (state == "reverted" and not late and not there):
        assert held.due_s is None, "what follows on the same switch would be ended too"
    else:
        assert held.due_s is not None
        assert 100.0 <= held.due_s <= max(100.0, tried_s + AGAIN_AT_MOST_S)
