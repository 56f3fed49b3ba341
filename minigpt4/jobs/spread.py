"""Rows worked on by several processes, on this machine or on others: a Ray cluster with Ray Data.

Needs Ray (``pip install 'minigpt4[ray]'``). What comes back is the same whoever did it. A worker that dies is replaced and its
batch is done again; a row that cannot be worked on comes back with its error, and takes no other row with it.
"""

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..io.jsonl import Row

log = logging.getLogger(__name__)
Work = Callable[[Sequence[Row]], Sequence[Row]]
_DEATHS = 2
"""How often workers may die of one batch before it is taken to be the fault of a row in it."""


class Deaths:
    """How often workers have died of something: what was begun and never ended. It lives in the cluster, by itself."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def begin(self, what: str) -> int:
        """Note a beginning; returns the deaths before it."""
        self._open[what] += 1
        return self._open[what] - 1

    def end(self, what: str) -> None:
        """Note that it went well."""
        del self._open[what]


class Worker:
    """One process of a cluster. What it does is made once, when its first rows come.

    Args:
        deaths: begins and ends (`Deaths`), wherever they are counted.
    """

    def __init__(self, make: Callable[[], Work], begin: Callable[[str], int], end: Callable[[str], object]):
        self._make, self._begin, self._end = make, begin, end
        self._work: Work | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Batches of ``row`` (JSON) -> ``id``, and ``added`` (JSON): JSON, since a row's keys differ from row to row."""
        rows = [json.loads(row) for row in batch["row"]]
        try:
            if self._work is None:
                self._work = self._make()
            added = self._survived(self._work, rows)
        except UserError as error:  # what no row is to blame for
            added = [{"failure": str(error)} for _ in rows]
        return {"id": [row["id"] for row in rows], "added": [json.dumps(one) for one in added]}

    def _survived(self, work: Work, rows: Sequence[Row]) -> list[Row]:
        """What is added to each row. A batch that workers die of is taken apart, to find the row that they die of."""
        whole = f"batch {rows[0]['id']}"
        if self._begin(whole) < _DEATHS:
            added = list(_halving(work, rows))
        else:
            added = []
            for row in rows:
                if self._begin(row["id"]):
                    added.append({"error": f"a worker died of it, after {_DEATHS} that died of its batch"})
                else:
                    added += _halving(work, [row])
                    self._end(row["id"])
        self._end(whole)
        return added


def _halving(work: Work, rows: Sequence[Row]) -> Iterator[Row]:
    """What is added to each row; where a batch fails in a way that nobody foresaw, it is split until one row stands alone."""
    try:
        yield from work(rows)
    except UserError:
        raise
    except Exception as error:
        if len(rows) == 1:
            log.exception("row %s", rows[0]["id"])
            yield {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
            return
        yield from _halving(work, rows[: len(rows) // 2])
        yield from _halving(work, rows[len(rows) // 2 :])


class Cluster:
    """Workers on a Ray cluster, each with a system of its own; one CPU each, and one GPU each where the cluster has so many.

    Args:
        address: ``local`` starts Ray here, until `close`; ``auto`` or ``HOST:PORT`` is a cluster that runs already.
    """

    def __init__(self, address: str = "local", workers: int = 2):
        self.address, self.workers, self._joined = address, workers, False

    def spread(self, make: Callable[[], Work], rows: Sequence[Row], batch: int) -> Iterator[dict[str, Row]]:
        """What is added to each row, by its id, as the batches are done; each row once.

        Args:
            make: called in each worker for what works there. It travels there, and so must all that it holds.
            rows: each with an ``id``.

        Raises:
            UserError: Ray is missing, the cluster cannot be had or is lost, or a worker says that it cannot work. What has been
                handed out by then is done.
        """
        if not rows:
            return
        ray = self._ray()
        try:
            yield from self._mapped(ray, make, rows, batch)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1][:200]
            raise UserError(f"--ray: the workers gave up ({type(error).__name__}: {reason}); what was done is kept") from None

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._joined:
            self._ray().shutdown()
            self._joined = False

    def _mapped(self, ray: Any, make: Callable[[], Work], rows: Sequence[Row], batch: int) -> Iterator[dict[str, Row]]:
        items = [{"row": json.dumps(row)} for row in rows]
        deaths = ray.remote(num_cpus=0)(Deaths).remote()
        gpus = int(ray.cluster_resources().get("GPU", 0) >= self.workers)
        dataset = ray.data.from_items(items, override_num_blocks=-(-len(items) // batch)).map_batches(
            Worker,
            batch_size=batch,
            fn_constructor_args=(make, _Called(ray, deaths.begin), _Called(ray, deaths.end)),
            compute=ray.data.ActorPoolStrategy(size=self.workers),
            num_cpus=1,
            num_gpus=gpus,
        )
        waiting = {row["id"] for row in rows}
        for block in dataset.iter_batches(batch_size=None, batch_format="numpy"):
            added: dict[str, Row] = {}
            for id, text in zip(block["id"].tolist(), block["added"].tolist(), strict=True):
                one = json.loads(text)
                if "failure" in one:
                    raise UserError(one["failure"])
                if id in waiting:  # a batch that was done twice after a death counts once
                    waiting.remove(id)
                    added[id] = one
            if added:
                yield added
        if waiting:
            raise UserError(f"--ray: {len(waiting):,} rows did not come back (such as {min(waiting)}); run it again for them")

    def _ray(self) -> Any:
        """Ray, with the cluster joined."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        try:
            import ray
            import ray.data
        except ImportError:
            raise UserError("--ray needs Ray: pip install 'minigpt4[ray]'") from None
        if ray.is_initialized():
            return ray
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self.address == "local":
                cpus = max(os.cpu_count() or 1, self.workers)
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
            else:
                ray.init(address=self.address, **quiet)
        except Exception as error:  # Ray raises plain ones too
            reason = str(error).strip().splitlines()[0][:200]
            raise UserError(f"--ray {self.address}: the cluster cannot be joined ({reason})") from None
        self._joined = True
        ray.data.DataContext.get_current().enable_progress_bars = False
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        return ray


@dataclass
class _Called:
    """A method of something in the cluster, as a function that waits for what it returns."""

    ray: Any
    method: Any

    def __call__(self, *given: Any) -> Any:
        return self.ray.get(self.method.remote(*given))
