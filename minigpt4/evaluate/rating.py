"""People say whether an answer does what was asked: a page on this machine, an append-only file, and what came of it."""

import hashlib
import io
import json
import os
import random
import time
from itertools import combinations
from pathlib import Path
from threading import Lock
from typing import Any

from ..errors import UserError
from ..io.jsonl import Output
from ..media.images import open_image
from ..metrics.interval import bootstrap
from ..reports.local import local_app
from .benchmarks.base import Row
from .run import kept
from .table import Line, Report

PAGE = Path(__file__).with_name("rating_page")
FILE = "ratings.jsonl"
RATINGS = ("yes", "no")
_SIDE, _MOST_NAME, _SEED = 1024, 100, 0


class Ratings:
    """The ratings of a run's answers: the last one of a person on an answer counts, nothing is overwritten.

    Args:
        folder: of a run.

    Raises:
        UserError: no answers, or a file that is something else.
    """

    def __init__(self, folder: Path):
        self.rows = kept(folder)[1]
        self.path = folder / FILE
        self._lock = Lock()
        self._known = {self._key(row): i for i, row in enumerate(self.rows)}
        self._given: dict[tuple[int, str], str] = {}
        log = Output(self.path, "rating")
        log.close()
        for entry in log.rows:
            place = self._known.get(str(entry.get("key")))
            if place is not None and entry["rating"] in RATINGS:  # an answer that is no longer there has no rating
                self._given[place, str(entry.get("rater"))] = entry["rating"]

    @staticmethod
    def _key(row: Row) -> str:
        return json.dumps([row["image"], row.get("prompt", ""), row["answer"]], ensure_ascii=False)

    @classmethod
    def about(cls, row: Row) -> str:
        """A digest of what is rated: an image, a prompt and an answer."""
        return hashlib.blake2b(cls._key(row).encode(errors="surrogatepass"), digest_size=8).hexdigest()

    def rate(self, place: int, rater: str, rating: str) -> None:
        """Note a rating; it is on disk when this returns.

        Raises:
            UserError: no such answer or rating, or nobody's name.
        """
        rater = " ".join(rater.split())
        if not 0 <= place < len(self.rows) or rating not in RATINGS:
            raise UserError(f"expected the number of an answer, and {' or '.join(RATINGS)}")
        if not rater or len(rater) > _MOST_NAME:
            raise UserError(f"say who rates, in at most {_MOST_NAME} characters")
        entry = {"key": self._key(self.rows[place]), "rater": rater, "rating": rating, "time": round(time.time())}
        with self._lock:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise UserError(f"{self.path}: cannot be written ({error.strerror})") from None
            self._given[place, rater] = rating

    def of(self, rater: str) -> dict[int, str]:
        """A person's ratings, by the number of the answer."""
        with self._lock:  # others rate meanwhile
            return {place: rating for (place, who), rating in self._given.items() if who == " ".join(rater.split())}

    @property
    def raters(self) -> list[str]:
        """Who has rated."""
        with self._lock:
            return sorted({who for _, who in self._given})

    def order(self) -> list[int]:
        """The answers in an order that tells nothing of where they come from, the same one for everybody."""
        return random.Random(_SEED).sample(range(len(self.rows)), len(self.rows))


def rating_report(ratings: Ratings) -> Report:
    """The share of answers that do what was asked, by task: an answer counts as its raters say on average.

    Raises:
        UserError: nobody has rated anything.
    """
    rated: dict[int, list[bool]] = {}
    for who in ratings.raters:
        for place, rating in ratings.of(who).items():
            rated.setdefault(place, []).append(rating == "yes")
    if not rated:
        raise UserError(f"{ratings.path}: no ratings yet; open the page with `minigpt4 evaluate rate`")
    tasks: dict[str, list[int]] = {}
    for place in sorted(rated):
        tasks.setdefault(str(ratings.rows[place].get("asked", "answers")), []).append(place)
    if len(tasks) > 1:
        tasks["all"] = sorted(rated)
    lines = []
    for name, places in tasks.items():
        shares = [sum(rated[place]) / len(rated[place]) for place in places]
        score = bootstrap(shares, groups=[ratings.rows[place]["image"] for place in places])
        lines.append(Line(name, {"success": score}, f"{sum(shares):g} of {len(places)}"))
    notes = [f"{len(rated):,} of {len(ratings.rows):,} answers are rated, by {', '.join(ratings.raters)}"]
    for one, two in combinations(ratings.raters, 2):
        a, b = ratings.of(one), ratings.of(two)
        if both := sorted(set(a) & set(b)):
            notes.append(f"{one} and {two} agree on {sum(a[p] == b[p] for p in both)} of {len(both)}")
    return Report("ratings", len(rated), lines, notes)


def rating_app(folder: Path, images: Path) -> Any:
    """The page and what it asks for, as an ASGI application.

    Args:
        images: the folder that the answers' images are in.

    Raises:
        UserError: no answers, or fastapi is missing.
    """
    ratings = Ratings(folder)
    order = ratings.order()
    app = local_app(PAGE, "x-rating")
    from fastapi import Body, HTTPException, Response
    from fastapi.responses import JSONResponse

    def place_at(index: int) -> int:
        if not 0 <= index < len(order):
            raise HTTPException(404, "no such answer")
        return order[index]

    @app.get("/api/state")
    def state(rater: str) -> dict[str, Any]:
        given = ratings.of(rater)
        return {"folder": folder.name, "ratings": [given.get(place) for place in order]}

    @app.get("/api/items/{index}")
    def item(index: int) -> dict[str, Any]:
        row = ratings.rows[place_at(index)]
        return {"prompt": row.get("prompt", ""), "answer": row["answer"], "about": ratings.about(row)}

    @app.get("/api/images/{index}")
    def image(index: int) -> Response:
        try:
            picture = open_image(images / ratings.rows[place_at(index)]["image"])
        except UserError as error:
            raise HTTPException(404, str(error)) from None
        picture.thumbnail((_SIDE, _SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=88)
        return Response(buffer.getvalue(), media_type="image/jpeg", headers={"Cache-Control": "no-cache"})

    @app.post("/api/ratings")
    def rate(given: dict[str, Any] = Body(...)) -> Any:
        index, rater, rating = (given.get(key) for key in ("index", "rater", "rating"))
        if type(index) is not int or not isinstance(rater, str) or not isinstance(rating, str):
            return JSONResponse({"error": "expected index, about, rater and rating"}, 400)
        if not 0 <= index < len(order) or given.get("about") != ratings.about(ratings.rows[order[index]]):
            return JSONResponse({"error": "the answers are others than when this page was opened; reload it"}, 409)
        try:
            ratings.rate(place_at(index), rater, rating)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 400)
        return {"rating": rating}

    return app
