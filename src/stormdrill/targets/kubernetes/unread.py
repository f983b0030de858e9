"""What planning may not read: all of it at once and by name, not the first answer that refuses."""

from __future__ import annotations

from stormdrill.cluster.api import Lost
from stormdrill.errors import Problem, Refused, StormdrillError
from stormdrill.targets.kubernetes import preflight
from stormdrill.targets.kubernetes.clusters import LiveClusters, reads

FORBIDDEN = " 403 "
OWN = (
    "/api/v1/namespaces/{0}",
    "/api/v1/namespaces/{0}/pods",
    "/api/v1/namespaces/{0}/services",
    "/apis/apps/v1/namespaces/{0}/deployments",
    "/apis/apps/v1/namespaces/{0}/statefulsets",
    "/api/v1/nodes",
)
"""To find a system."""
WIDE = ("/api/v1/pods", "/api/v1/namespaces", "/apis/policy/v1/poddisruptionbudgets")
"""And for faults that take whole nodes, with whoever is on them."""


def explained(refused: Refused, clusters: LiveClusters) -> Refused:
    """The same, in the words of preflight where it is rights that are missing."""
    if not any(FORBIDDEN in f" {problem.what} " for problem in refused.problems):
        return refused
    found: list[Problem] = []
    for name in clusters.names:
        asked = clusters.asked(name)
        paths = {path.format(clusters.spec.namespace) for path in OWN} | asked
        paths |= set(WIDE) if asked & set(WIDE) else set()
        try:
            found += preflight.here(name, preflight.not_allowed(clusters.api(name), reads(paths, name)))
        except (Lost, StormdrillError):
            return refused
    others = [problem for problem in refused.problems if FORBIDDEN not in f" {problem.what} "]
    return Refused([*found, *others]) if found else refused
