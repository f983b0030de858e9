"""A load that is sent from pods of the fake cluster, and what a conductor would do with it."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from load_crew import HTTP_USER, Crewed

from fake_cluster import FakeCluster
from fake_cluster.access import TokenAccess
from stormdrill.cluster.api import Api
from stormdrill.load.cluster import Crew
from stormdrill.load.in_cluster import InClusterLoad
from stormdrill.load.in_cluster import Inside as InsideOf
from stormdrill.load.in_cluster_pods import Owner, Place
from stormdrill.load.messages import Generator
from stormdrill.model.event import LoadEnded, RecordClosed
from stormdrill.model.profile import Profile, Stream
from stormdrill.store.identity import boot_id

IMAGE = "stormdrill:test"
RUN = "20260101-120000-drill"
TESTS = os.pathsep.join(str(Path(__file__).parents[depth]) for depth in (0, 1))


class Inside(Crewed):
    """As `Crewed`, in pods."""

    def __init__(self, directory: Path, cluster: FakeCluster | None, access: TokenAccess | None = None) -> None:
        super().__init__(directory)
        self.cluster = cluster
        self.api = Api(access or cluster.admin)

    def make(  # noqa: PLR0913  (what a load is made of)
        self,
        *entries: str,
        rate: float = 120.0,
        workers: int = 2,
        locustfile: Path = HTTP_USER,
        poisson: bool = False,
        streams: tuple[Stream, ...] = (Stream("s", 1.0, {"tier": "1"}, 1.0),),
        api: Api | None = None,
        owner: Owner | None = None,
        avoid: tuple[str, ...] = (),
        image: str = IMAGE,
        pull: str = "",
        profile: Profile | None = None,
    ) -> "Inside":
        self.profile = profile or Profile("p", "http_user", "poisson" if poisson else "constant", (), streams)
        config = Generator(
            control="",
            run=RUN,
            records="",
            locustfile=str(locustfile),
            profile=self.profile,
            rate_per_s=rate,
            seed=11,
            entries=entries,
            boot_id=boot_id(),
        )
        self.load = InClusterLoad(
            self.directory,
            config,
            Crew(workers),
            inside=InsideOf(
                api or self.api, Place("stormdrill", image, RUN, 60.0, pull=pull, owner=owner, avoid=avoid)
            ),
            tell=lambda event: self.told.append((time.monotonic(), event)),
            stop_run=lambda why: self.stopped.append((time.monotonic(), why)),
            announce=self._announce,
        )
        return self

    def start(self, *entries: str, **options: object) -> "Inside":
        self.make(*entries, **options)
        self.load.prepare(self.children)
        return self.begin()

    def end(self, at_s: float, timeout_s: float = 2.0) -> tuple[LoadEnded, list[RecordClosed]]:
        """Told ahead, so that a busy machine adds no arrival."""
        self.until(at_s - 0.4)
        ended, *closed = self.load.end((self.epoch_s + at_s) * 1e3, timeout_s)
        return ended, closed

    def pods(self) -> list[dict]:
        return [
            pod for pod in self.cluster.objects("pods", "stormdrill") if pod["metadata"]["labels"].get("stormdrill")
        ]

    def pod(self, instance: str) -> str:
        return self.load._pods.pod_of(instance).name

    def left(self, within_s: float = 10.0) -> list[str]:
        """Jobs and pods that are still there then."""
        until_s = time.monotonic() + within_s
        while True:
            jobs = self.cluster.objects("jobs.batch", "stormdrill")
            names = [item["metadata"]["name"] for item in [*jobs, *self.pods()]]
            if not names or time.monotonic() > until_s:
                return names
            time.sleep(0.05)


@contextlib.contextmanager
def runner(cluster: FakeCluster, entry: str):
    """A process that has begun a load from the cluster, and does nothing more."""
    with tempfile.TemporaryDirectory() as directory:
        argv = [sys.executable, __file__, cluster.url, directory, entry]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": TESTS}) as process:
            try:
                assert process.stdout.readline() == b"begun\n"
                yield process
            finally:
                process.kill()


if __name__ == "__main__":
    url, directory, entry = sys.argv[1:]
    begun = Inside(Path(directory), None, TokenAccess(url, "admin")).start(entry, rate=100.0)
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    time.sleep(600)
