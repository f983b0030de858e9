"""What is reverted at the same time has no object in common; what has one is reverted the last first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stormdrill.cluster.ledger import Armed
from stormdrill.cluster.reverting import lanes_of
from stormdrill.model.undo import KubeDelete

PLACES = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3)


@given(st.lists(PLACES, max_size=12))
def test_lanes_share_no_object_and_go_backwards(touched: list[list[str]]) -> None:
    armed = [
        Armed(f"i{number}", tuple(KubeDelete("", f"/{place}", "r1") for place in places), 1.0, number)
        for number, places in enumerate(touched, 1)
    ]
    lanes = lanes_of(armed)
    assert sorted(entry.number for lane in lanes for entry in lane) == [entry.number for entry in armed]
    assert all([e.number for e in lane] == sorted((e.number for e in lane), reverse=True) for lane in lanes)
    objects = [{word.path for entry in lane for word in entry.undos if isinstance(word, KubeDelete)} for lane in lanes]
    assert sum(map(len, objects)) == len({path for each in objects for path in each})
