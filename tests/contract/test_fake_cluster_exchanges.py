"""The fake cluster answers as a real API server did: recorded exchanges are replayed in order and compared.

What is not reproduced stands in DEVIATIONS with its reason. The table is held to the truth from both sides: what
differs and is not in it fails, and so does what is in it and differs no longer.
"""

from __future__ import annotations

import pytest

from fake_cluster import FakeCluster
from fake_cluster.recorded import prepare
from fake_cluster.replay import Replay, topic

TOPICS = ("crud", "patch", "apply", "list-watch", "dry-run", "leases", "rbac", "discovery")
PATIENCE_S = 3.0
"""How long a read is repeated until the controllers have done what it shows."""

GO_DIFFERENCE = "the message goes on with a difference of two Go structs, which is for people's eyes"
HASH = "a message shows a pod-template-hash in plain: it comes from the memory layout of Go structs"

FEW = 5
"""Of more than four hundred exchanges. A smaller number may be written here, not a larger one."""
CONTROLLERS = "controllers of the fake cluster write without owning fields; the real one has an entry more"

DEVIATIONS: dict[str, dict[str, str]] = {
    "apply": {"Apply without replicas: the scaler's number stays": CONTROLLERS},
    "patch": {"Pod: other fields of spec may not change: 422": GO_DIFFERENCE},
    "dry-run": {
        "Create of a Pod with dryRun=All shows the defaults of admission: tolerations, service account, priority": (
            "the recorded server projects a ConfigMap of its distribution into each Pod"
        ),
        "Patch of the template with dryRun=All: generation rises in the answer, the resourceVersion does not": HASH,
        "Proof: the Deployment is what it was": HASH,
    },
}


@pytest.mark.parametrize("name", TOPICS)
def test_recorded_exchanges_are_reproduced(name: str) -> None:
    with FakeCluster() as cluster:
        prepare(cluster)
        assert cluster.behaviour is not None
        cluster.behaviour.loop.settle()
        found = Replay(cluster, name, PATIENCE_S).run()
        assert not cluster.mistakes
    differing = {exchange: wrong for exchange, wrong in found.items() if wrong}
    known = DEVIATIONS.get(name, {})
    told = [
        f"{exchange}\n    " + "\n    ".join(wrong) for exchange, wrong in differing.items() if exchange not in known
    ]
    assert not told, "\n".join(told)
    assert not sorted(set(known) - set(differing)), "these are reproduced by now: take them out of DEVIATIONS"


def test_every_deviation_names_an_exchange_and_a_reason_and_they_are_few() -> None:
    assert sum(map(len, DEVIATIONS.values())) <= FEW
    for name, known in DEVIATIONS.items():
        assert set(known) <= {exchange["name"] for exchange in topic(name)}
        assert all(known.values())
