"""The review page's server: loopback only, nothing from elsewhere, one item at a time."""

import io
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..media.images import open_image
from ..reports.local import local_app, serve_here
from .review import LOG, Review, about, agreement, texts_to_review
from .rules import SAYS, changed_words

PAGE = Path(__file__).with_name("review_page")
CHANGED = "not saved: the texts are others than when this page was opened; reload it"
_SIDE = 1024


def review_app(folder: Path) -> Any:
    """The page and what it asks for, as an ASGI application.

    Raises:
        UserError: nothing to review, or fastapi is missing.
    """
    app = local_app(PAGE, "x-review")
    from fastapi import Body, HTTPException, Response
    from fastapi.responses import JSONResponse

    rows = texts_to_review(folder)
    ids = [row["id"] for row in rows]
    review = Review(folder / LOG, {row["id"]: about(row) for row in rows})

    def row_at(index: int) -> dict[str, Any]:
        if not 0 <= index < len(rows):
            raise HTTPException(404, "no such item")
        return rows[index]

    @app.get("/api/state")
    def state(reviewer: str) -> dict[str, Any]:
        return {"folder": folder.name, "codes": review.codes(ids, reviewer), "agreement": agreement(review)}

    @app.get("/api/items/{index}")
    def item(index: int, reviewer: str) -> dict[str, Any]:
        row = row_at(index)
        raw, continued, text = (str(row.get(key, "")) for key in ("raw", "continued", "text"))
        mine = review.standing(row["id"], reviewer)
        others = {name: one.action for name, one in review.of(row["id"]).items() if name != reviewer}
        return {
            "index": index,
            "id": row["id"],
            "about": about(row),
            "caption": row.get("caption", ""),
            "raw": raw,
            "continued": changed_words(raw, continued),
            "repaired": changed_words(continued or raw, text),
            "text": text,
            "repairs": row.get("repairs", []),
            "flaws": [flaw | {"says": SAYS.get(flaw["rule"], "")} for flaw in row.get("flaws", [])],
            "mine": None if mine is None else {"action": mine.action, "text": mine.text},
            "others": others,
        }

    @app.get("/api/images/{index}")
    def image(index: int) -> Response:
        try:
            picture = open_image(row_at(index)["image"])
        except UserError as error:
            raise HTTPException(404, str(error)) from None
        picture.thumbnail((_SIDE, _SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=88)
        return Response(buffer.getvalue(), media_type="image/jpeg", headers={"Cache-Control": "no-cache"})

    @app.post("/api/decisions")
    def decide(decision: dict[str, Any] = Body(...)) -> Any:
        index, reviewer, action, text = (decision.get(key) for key in ("index", "reviewer", "action", "text"))
        if type(index) is not int or not isinstance(reviewer, str) or not isinstance(action, str):
            return JSONResponse({"error": "expected index, id, about, reviewer and action"}, 400)
        seen = {"id": decision.get("id"), "about": decision.get("about")}
        if not 0 <= index < len(rows) or seen != {"id": rows[index]["id"], "about": about(rows[index])}:
            return JSONResponse({"error": CHANGED}, 409)  # a page that was opened before the recipe was run again
        if text is not None and not isinstance(text, str):
            return JSONResponse({"error": "text must be text"}, 400)
        try:
            stands = review.decide(row_at(index)["id"], reviewer, action, text)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 400)
        return {"mine": None if stands is None else {"action": stands.action, "text": stands.text}}

    return app


def serve_review(folder: Path, port: int, told: Any) -> None:
    """Serve the page on this machine alone until it is stopped.

    Args:
        told: called with the address once the page is there to be opened.
    """
    serve_here(review_app(folder), port, told)
