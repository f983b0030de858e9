"""What stands in a cluster for a fault, and how long its deletion may take."""

from __future__ import annotations

import pytest

from stormdrill.model.system import ImagePolicy
from stormdrill.model.undo import KubeDelete
from stormdrill.targets.kubernetes.mechanisms.ours import GONE_S, created, pod


@pytest.mark.parametrize("grace", [1, 10, 30])
def test_a_pod_has_its_own_time_to_end_and_more_until_it_has_to_be_gone(grace: int) -> None:
    body = pod("tells", "shop", ImagePolicy("image"), ["true"], labels={}, requests={}, limits={})
    spec = body["spec"]
    assert isinstance(spec, dict)
    spec["terminationGracePeriodSeconds"] = grace
    assert created("", "/api/v1/namespaces/shop/pods", "run", body, "").undo.timeout_s == grace + GONE_S


def test_what_is_no_pod_has_the_usual_time() -> None:
    made = created("", "/api/v1/namespaces/shop/services", "run", {"metadata": {"name": "behind"}, "spec": {}}, "").undo
    assert made.timeout_s == KubeDelete("", "", "").timeout_s
