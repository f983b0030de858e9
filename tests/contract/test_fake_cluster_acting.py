"""What acts in the fake cluster acts as in a real one: the recorded exchanges in which controllers, kubelets, budgets,
commands and Services show are replayed in order and compared. The processes are real ones, on this machine.

What is not reproduced stands in DEVIATIONS with its reason; what is reproduced by now must not stand there.
"""

from __future__ import annotations

import pytest

from fake_cluster import FakeCluster
from fake_cluster.acting import IMAGE, Acting, recorded_cluster
from fake_cluster.replay import topic

PATIENCE_S = {"pods": 5.0, "eviction": 8.0, "exec": 5.0, "nodes": 8.0, "scale-deployments": 6.0, "services": 5.0,
              "priority": 5.0}  # fmt: skip
"""How long a read is repeated until controllers and kubelets have done what it shows."""

DEVIATIONS: dict[str, dict[str, str]] = {
    "pods": {
        "WATCH of Pods that end by themselves: Succeeded and Failed": (
            "between the end of a process and the phase the recorded kubelet writes once more; here both come at once"
        ),
        "An ephemeral container through the main resource: 422": (
            "the message goes on with a difference of two Go structs, which is for people's eyes"
        ),
    },
    "services": {
        "WATCH of the EndpointSlices of a Service through every change of its selector": (
            "a Pod that goes at once is gone before the controller looks: its terminating endpoint is not shown"
        ),
        "Patch of what is still there: 200": (
            "a race in the recording: the namespace's content was not marked yet, here it is at once"
        ),
    },
}


@pytest.mark.parametrize("name", list(PATIENCE_S))
def test_recorded_acts_are_reproduced(name: str) -> None:
    with FakeCluster(run_images={IMAGE}) as cluster:
        recorded_cluster(cluster)
        found = Acting(cluster, name, PATIENCE_S[name]).run()
    differing = {exchange: wrong for exchange, wrong in found.items() if wrong}
    known = DEVIATIONS.get(name, {})
    told = [
        f"{exchange}\n    " + "\n    ".join(wrong) for exchange, wrong in differing.items() if exchange not in known
    ]
    assert not told, "\n".join(told)
    assert not sorted(set(known) - set(differing)), "these are reproduced by now: take them out of DEVIATIONS"


def test_every_deviation_names_an_exchange() -> None:
    for name, known in DEVIATIONS.items():
        assert set(known) <= {exchange["name"] for exchange in topic(name)}
