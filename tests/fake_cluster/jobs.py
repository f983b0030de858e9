"""Job → Pods: as many as it wants, again where they failed, until it is complete or has failed too often."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from datetime import datetime

from fake_cluster.ground import Ground, Refused, now
from fake_cluster.loop import Change, Key
from fake_cluster.matching import Obj, condition, controller_of, deleted_at, is_true
from fake_cluster.replicas import owners_key, pod_from

INDEX = "batch.kubernetes.io/job-completion-index"
BACKOFF_S, LONGEST_BACKOFF_S = 10.0, 600.0


def backoff_s(failed: int, first_s: float = BACKOFF_S) -> float:
    """How long no new Pod is made after the last of so many that failed."""
    return min(first_s * 2.0 ** (failed - 1), LONGEST_BACKOFF_S) if failed else 0.0


class Jobs:
    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.first_backoff_s = BACKOFF_S
        """Before the first Pod that replaces another; less for whom it is enough that one comes."""
        self._failed: dict[str, tuple[int, float]] = {}
        """uid → failures seen, and when the last was."""
        self._gone: dict[str, list[int]] = {}
        """uid → Pods that are gone: how many had succeeded, how many had not."""

    def concerns(self, change: Change) -> Iterable[Key]:
        if change.resource == "jobs":
            return [(change.namespace, change.name)]
        if change.resource != "pods":
            return ()
        owner = controller_of(change.now)
        if change.after is None and owner and owner["kind"] == "Job":
            good = (change.now.get("status") or {}).get("phase") == "Succeeded"
            self._gone.setdefault(owner["uid"], [0, 0])[0 if good else 1] += 1
        return owners_key(change, "Job")

    def act(self, namespace: str, name: str) -> float | None:
        job = self.ground.get("jobs", namespace, name)
        if job is None:
            return None
        finished = condition(job, "Complete") or condition(job, "Failed")
        if finished:
            return self._expire(job, finished["lastTransitionTime"])
        if deleted_at(job):
            return None
        pods = self.ground.controlled(job, "pods")
        gone = self._gone.get(job["metadata"]["uid"], [0, 0])
        succeeded = gone[0] + sum(one["status"].get("phase") == "Succeeded" for one in pods)
        failed = gone[1] + sum(map(_failed, pods))
        active = [one for one in self.ground.pods_that_live(pods)]
        wanted = job["spec"].get("completions", 1 if job["spec"].get("parallelism", 1) == 1 else None)
        restarts = sum(_restarts(one) for one in pods) if _spec(job).get("restartPolicy") == "OnFailure" else 0
        verdict = self._verdict(job, succeeded, failed + restarts, wanted, active)
        again_s: float | None = None
        if verdict or job["spec"].get("suspend"):
            for pod in active:
                self.ground.delete("pods", pod)
            active = []
        else:
            again_s = self._fill(job, pods, active, succeeded, failed, wanted)
        self._tell(job, succeeded, failed, verdict)
        return _sooner(again_s, self._deadline_s(job))

    def _verdict(
        self, job: Obj, succeeded: int, failed: int, wanted: int | None, active: list[Obj]
    ) -> tuple[str, str, str] | None:
        if failed > job["spec"].get("backoffLimit", 6):
            return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        if (left_s := self._deadline_s(job)) is not None and left_s <= 0:
            return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
        if wanted is not None and succeeded >= wanted:
            return "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
        if wanted is None and succeeded and not active:
            return "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
        return None

    def _fill(
        self, job: Obj, pods: list[Obj], active: list[Obj], succeeded: int, failed: int, wanted: int | None
    ) -> float | None:
        uid, parallel = job["metadata"]["uid"], job["spec"].get("parallelism", 1)
        room = parallel - len(active)
        if wanted is not None:
            room = min(room, wanted - succeeded - len(active))
        elif succeeded:
            room = 0
        for pod in active[parallel:]:
            self.ground.delete("pods", pod)
        seen, since = self._failed.get(uid, (0, 0.0))
        if failed > seen:
            self._failed[uid] = seen, since = failed, time.monotonic()
        wait_s = since + backoff_s(seen, self.first_backoff_s) - time.monotonic()
        if room > 0 and wait_s > 0:
            return wait_s
        done = {_index(one) for one in pods if one["status"].get("phase") == "Succeeded"} | {
            _index(one) for one in active
        }
        free = [at for at in range(wanted or 0) if str(at) not in done]
        for at in range(room):
            try:
                self.ground.create("pods", job["metadata"]["namespace"], self._pod(job, free[at] if free else None))
            except Refused:
                return 0.5
        return None

    def _pod(self, job: Obj, index: int | None) -> Obj:
        template = copy.deepcopy(job["spec"]["template"])
        pod = pod_from(template, job, "Job", "batch/v1")
        if job["spec"].get("completionMode") == "Indexed" and index is not None:
            pod["metadata"]["generateName"] = f"{job['metadata']['name']}-{index}-"
            pod["metadata"].setdefault("labels", {})[INDEX] = str(index)
            pod["metadata"].setdefault("annotations", {})[INDEX] = str(index)
            for container in pod["spec"]["containers"]:
                container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "value": str(index)})
        return pod

    def _tell(self, job: Obj, succeeded: int, failed: int, verdict: tuple[str, str, str] | None) -> None:
        pods = self.ground.controlled(job, "pods")
        active = self.ground.pods_that_live(pods)
        status: Obj = copy.deepcopy(job.get("status") or {})
        status["startTime"] = status.get("startTime") or now()
        counts = {"active": len(active), "succeeded": succeeded, "failed": failed}
        for key, count in counts.items():
            status.pop(key, None)
            if count:
                status[key] = count
        status["ready"] = sum(is_true(one, "Ready") for one in active)
        status["terminating"] = sum(bool(deleted_at(one)) for one in pods)
        status["uncountedTerminatedPods"] = {}
        if verdict:
            kind, reason, message = verdict
            early = "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget"
            status["conditions"] = [
                {
                    "type": one, "status": "True", "lastProbeTime": now(), "lastTransitionTime": now(),
                    "reason": reason, "message": message,
                }
                for one in (early, kind)
            ]  # fmt: skip
            if kind == "Complete":
                status["completionTime"] = now()
        self.ground.set_status("jobs", job, status)

    def _expire(self, job: Obj, at: str) -> float | None:
        ttl_s = job["spec"].get("ttlSecondsAfterFinished")
        if ttl_s is None:
            return None
        left_s = datetime.fromisoformat(at).timestamp() + float(ttl_s) - time.time()
        if left_s <= 0:
            self.ground.delete("jobs", job)
            return None
        return left_s

    @staticmethod
    def _deadline_s(job: Obj) -> float | None:
        limit_s, began = job["spec"].get("activeDeadlineSeconds"), (job.get("status") or {}).get("startTime")
        if limit_s is None:
            return None
        return float(limit_s) + (datetime.fromisoformat(began).timestamp() - time.time() if began else 0.0)


def _spec(job: Obj) -> Obj:
    return dict(job["spec"]["template"]["spec"])


def _failed(pod: Obj) -> bool:
    """One that is being ended counts as soon as it is."""
    phase = pod["status"].get("phase")
    return phase == "Failed" or bool(phase != "Succeeded" and deleted_at(pod))


def _index(pod: Obj) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(INDEX, ""))


def _restarts(pod: Obj) -> int:
    return sum(one.get("restartCount", 0) for one in pod["status"].get("containerStatuses") or [])


def _sooner(*seconds: float | None) -> float | None:
    given = [one for one in seconds if one is not None]
    return min(given) if given else None
