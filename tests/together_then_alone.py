"""How the suite is spread: laws over all workers at once; then what needs the machine to itself, one after the other.

Drills are judged, and a drill beside which other tests use the cores is judged as what it is: disturbed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadScheduling

if TYPE_CHECKING:
    import pytest
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

REAL = "tests/real/"
"""Tests below this folder start real processes."""
ON_A_CLUSTER = "tests/real/test_kubernetes_"
"""What these drill is a pretended cluster: that this machine is busy taints nothing there, and they mostly wait."""
CHUNK = 2
"""Tests that a worker gets at a time: few, so that the workers end at about the same moment."""


def alone(test: str) -> bool:
    """Whether this test needs the machine to itself."""
    return test.startswith(REAL) and not test.startswith(ON_A_CLUSTER)


class TogetherThenAlone(LoadScheduling):
    """Spreads the tests that bear company; when all workers but one have ended, that one gets those that don't."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        self.maxschedchunk = self.maxschedchunk or CHUNK

    def check_schedule(self, node: WorkerController, duration: float = 0) -> None:
        """Give more to the node, or end it when only tests that run alone are left and it isn't the last one."""
        if self.pending and not self._together() and len(self.nodes) > 1:
            if node is not self.nodes[0] and not node.shutting_down:
                node.shutdown()
            return
        super().check_schedule(node, duration)

    def remove_node(self, node: WorkerController) -> str | None:
        """Forget the node; where only one is left now, what runs alone begins."""
        crashed: str | None = super().remove_node(node)
        for left in self.nodes:
            self.check_schedule(left)
        return crashed

    def _together(self) -> int:
        """How many of the pending tests, which are in the order of collection, bear company."""
        assert self.collection is not None
        return sum(not alone(self.collection[index]) for index in self.pending)

    def _send_tests(self, node: WorkerController, num: int) -> Any:
        super()._send_tests(node, num if len(self.nodes) == 1 else min(num, self._together()))
