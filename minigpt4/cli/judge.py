"""Commands that measure answers by what others think of them: language models, and people."""

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UserError
from .endpoints import ACCOUNT, Account, endpoint, is_endpoint
from .evaluate import app
from .options import Json, import_quickly, options
from .terminal import remark, say, say_line

Answers = Annotated[Path, typer.Argument(metavar="ANSWERS", show_default=False, help="Answers, or the folder of a run.")]


@app.command()
@options(account=ACCOUNT)
def judge(
    answers: Answers,
    by: Annotated[str, typer.Option("--judge", metavar="URL#MODEL", help="The endpoint that judges.", show_default=False)],
    protocol: Annotated[
        str, typer.Option(help="each-caption: how many of people's captions are covered; one-caption: is one, yes or no.")
    ] = "each-caption",
    rounds: Annotated[int, typer.Option(min=1, help="Ask so many times; two show how far the judge agrees with itself.")] = 2,
    limit: Annotated[int | None, typer.Option(min=1, help="So many answers, the same ones each time.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Verdicts; judge-PROTOCOL.jsonl beside the answers when not given. Continued.")
    ] = None,
    json: Json = False,
    *,
    account: Account,
) -> None:
    """Have a language model judge answers to `captions`, as the MiniGPT-4 paper does (temperature 0)."""
    import_quickly()
    from ..evaluate.judge import judge as judged
    from ..evaluate.run import kept
    from .batch import Bar

    if not is_endpoint(by):
        raise UserError(f"--judge {by}: expected an endpoint, like https://host/v1#MODEL")
    benchmark, rows = kept(answers)
    if benchmark.name != "captions":
        raise UserError(f"{answers}: has answers to {benchmark.name}; a judge is asked about those to captions")
    folder = answers if answers.is_dir() else answers.parent
    file = output or folder / f"judge-{protocol}.jsonl"
    done = judged(rows, endpoint(by, account), protocol, file, rounds=rounds, limit=limit, watch=Bar())
    if json:
        say(jsonlib.dumps(done.report.as_dict() | {"spent": done.spent}, ensure_ascii=False, indent=1))
    else:
        say(done.report.as_text())
    remark(f"verdicts are kept in {done.file}; this run: {_spent(done.spent)}")
    raise typer.Exit(int(bool(done.failed)))


def _spent(spent: dict[str, Any]) -> str:
    return f"{spent['requests']:,.0f} requests, {spent['failed']:,.0f} failed, {spent['cost']:.4f} spent"


@app.command()
def rate(
    run: Annotated[Path, typer.Argument(metavar="RUN", show_default=False, help="The folder of a run, such as of `advanced`.")],
    images: Annotated[Path | None, typer.Option(help="The folder that its images are in.")] = None,
    report: Annotated[bool, typer.Option("--report", help="Print what people said, and open no page.")] = False,
    json: Json = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 7862,
) -> None:
    """Open a page on this machine where people say whether each answer does what was asked."""
    import_quickly()
    from ..evaluate.rating import Ratings, rating_app, rating_report
    from ..reports.local import serve_here

    if report or json:
        found = rating_report(Ratings(run))
        say(jsonlib.dumps(found.as_dict(), ensure_ascii=False, indent=1) if json else found.as_text())
        return
    if images is None:
        raise UserError("say with --images where the images are, to be shown beside the answers (or --report for the ratings)")
    if not images.is_dir():
        raise UserError(f"{images}: no such folder")
    serve_here(rating_app(run, images), port, lambda address: say_line(f"{address} (Ctrl-C ends)", flush=True))
