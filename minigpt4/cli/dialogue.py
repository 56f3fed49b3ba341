"""The command that lets models talk with each other about images and video."""

import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import UserError
from ..io.jsonl import to_json
from .endpoints import KEY, Account, endpoint, is_endpoint, prices_of
from .options import SYSTEM, Json, System, options
from .terminal import console, remark, say, say_line

_AGENTS = "Who takes part"
_VIDEO = "Video"
Sampling = Literal["uniform", "interval", "change"]  # that of `media.video`, whose import would slow down every command
_AGENT_HELP = "a system like those of --model, or an endpoint: URL#MODEL. The system of --model when not given."


@options(system=SYSTEM)
def converse(
    images: Annotated[list[Path] | None, typer.Argument(metavar="IMAGE... | FOLDER", show_default=False)] = None,
    video: Annotated[Path | None, typer.Option(help="A video in place of images.", rich_help_panel=_VIDEO)] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames to take from it: 8 when not given.", rich_help_panel=_VIDEO)
    ] = None,
    sampling: Annotated[
        Sampling | None, typer.Option(help="How frames are chosen: uniform when not given.", rich_help_panel=_VIDEO)
    ] = None,
    interval: Annotated[
        float | None, typer.Option(help="Seconds, with --sampling interval: 2 when not given.", rich_help_panel=_VIDEO)
    ] = None,
    segments: Annotated[
        int | None,
        typer.Option(min=1, help="Parts that are told by themselves, then merged: 4 when not given.", rich_help_panel=_VIDEO),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Most questions: 10 for an image, 30 for a video.")] = None,
    context: Annotated[
        int | None,
        typer.Option(min=-1, help="Earlier rounds that the answerer is told, of an image: 1 when not given; -1 for all."),
    ] = None,
    patience: Annotated[int, typer.Option(min=0, help="End after so many rounds without a new noun; 0: never early.")] = 2,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="Of questioner and summariser.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="YAML with other prompts (see docs/chatcaptioner.md).")] = None,
    questioner: Annotated[str | None, typer.Option(help=f"Who asks: {_AGENT_HELP}", rich_help_panel=_AGENTS)] = None,
    answerer: Annotated[str | None, typer.Option(help="Who sees and answers.", rich_help_panel=_AGENTS)] = None,
    summariser: Annotated[
        str | None, typer.Option(help="Who sums up; the questioner when not given.", rich_help_panel=_AGENTS)
    ] = None,
    detect: Annotated[
        bool,
        typer.Option("--detect", help="The system of --model looks for what is named, and at it.", rich_help_panel=_AGENTS),
    ] = False,
    key_env: Annotated[str, typer.Option(help="Variable that holds the key.", rich_help_panel=_AGENTS)] = KEY,
    prices: Annotated[str | None, typer.Option(help="IN,OUT: money for a million tokens.", rich_help_panel=_AGENTS)] = None,
    max_cost: Annotated[float | None, typer.Option(min=0.0, help="Money to spend at most.", rich_help_panel=_AGENTS)] = None,
    cache_folder: Annotated[
        Path | None, typer.Option("--cache", help="Keeps endpoints' replies.", rich_help_panel=_AGENTS)
    ] = None,
    output: Annotated[Path | None, typer.Option(help="JSON Lines of dialogues; continued if it exists.")] = None,
    html: Annotated[Path | None, typer.Option(help="Page with plain and enriched captions; needs --output.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help='JSON Lines of {"image", "objects"} or {"image", "captions"}, for --html.')
    ] = None,
    from_caption: Annotated[
        bool, typer.Option("--from-caption", help="Put the questions to who sums up, with the caption alone; for --html.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Dialogues at a time, with --output.")] = 4,
    json: Json = False,
    *,
    system: System,
) -> None:
    """Let one model ask and another answer until an image or a video is well described."""
    from ..dialogue.captioner import Partners, Rules
    from ..dialogue.prompts import load_prompts
    from ..media.images import images_in

    if (video is None) == (not images):
        raise UserError("converse needs images or a folder, or --video FILE")
    if html is not None and output is None:
        raise UserError("--html needs --output FILE for the dialogues")
    if truth is not None and html is None:
        raise UserError("--truth goes with --html FILE")
    if from_caption and html is None:
        raise UserError("--from-caption goes with --html FILE")
    if json and output is not None:
        raise UserError("--json prints; with --output FILE the dialogues are JSON already")
    of_video = {"--frames": frames, "--sampling": sampling, "--interval": interval, "--segments": segments}
    of_images = {"--detect": detect or None, "--context": context}
    for name, value in (of_images if video is not None else of_video).items():
        if value is not None:
            raise UserError(f"{name} is for {'images' if video is not None else 'a video: --video FILE'}")
    if interval is not None and sampling != "interval":
        raise UserError("--interval goes with --sampling interval")
    frames, sampling, interval, segments = (
        frames or 8,
        sampling or "uniform",
        2.0 if interval is None else interval,
        segments or 4,
    )
    files = [video] if video is not None else images_in(images or [])
    wording = load_prompts(prompts)
    wanted = rounds or (30 if video is not None else 10)
    told = 1 if context is None else context
    rules = Rules(rounds=wanted, context=told, patience=patience, temperature=temperature)
    if len(files) > 1 and output is None and not json:
        raise UserError("several images need --output FILE for the dialogues, or --json")
    if video is not None:
        from ..media.video import frames_of

        taken = frames_of(video, frames, sampling, interval)
    else:
        from ..media.images import check_image

        if len(files) == 1:
            check_image(files[0])

    account = Account(key_env, prices, max_cost)
    prices_of(prices)  # a wrong price is said now
    spending = key_env != KEY or prices is not None or max_cost is not None or cache_folder is not None
    if spending and not any(is_endpoint(name or system.model) for name in (questioner, answerer, summariser)):
        raise UserError("--key-env, --prices, --max-cost and --cache go with an endpoint: --questioner http://host/v1#NAME")
    make = _Agents(system, account, cache_folder)

    @cache
    def partners() -> Partners:
        asks = make(questioner)
        sums = asks if summariser is None else make(summariser)
        return Partners(
            questioner=asks, answerer=make(answerer), summariser=sums, detector=make.assistant(system.model) if detect else None
        )

    def run(file: Path, listener: Any = None) -> Any:
        if video is not None:
            from ..dialogue.video import converse_video

            return converse_video(taken, file, partners(), wording["video"], rules, listener, segments)
        from ..dialogue.captioner import ImageDialogue

        dialogue = ImageDialogue(partners(), wording["image"], rules, listener, file)
        return dialogue.run()

    if output is not None:
        asked = wording["image" if video is None else "video"] if from_caption else None
        named = {"questioner": questioner, "answerer": answerer, "summariser": summariser or questioner}
        how: dict[str, Any] = {
            "rounds": wanted,
            "context": told,
            "patience": patience,
            "temperature": temperature,
            "detect": detect or None,
        }
        if video is not None:
            how |= {"frames": frames, "sampling": sampling, "interval": interval, "segments": segments}
        by = _made_by(system, named, how, wording["video" if video is not None else "image"])
        raise typer.Exit(_many(files, output, html, truth, run, workers, partners, by, asked))
    raise typer.Exit(_shown(files, run, json))


def _shown(files: list[Path], run: Any, json: bool) -> int:
    """Dialogues on standard output, as they come."""
    from ..dialogue.agents import AgentError

    failed = 0
    for file in files:
        try:
            done = run(file, None if json else _tell)
        except (UserError, AgentError) as error:
            remark(f"error: {file}: {error}" if isinstance(error, AgentError) else f"error: {error}")
            failed += 1
            continue
        if json:
            say_line(to_json(done.row()), flush=True)
        elif done.spent["cost"]:
            remark(f"spent: {done.spent['cost']:.4f}")
    return 2 if failed == len(files) else int(failed > 0)


def _tell(kind: str, text: str) -> None:
    if kind == "problem":
        remark(f"warning: {text}")
    else:
        say({"question": "Q: ", "answer": "A: ", "caption": "\n"}[kind] + text, flush=True)


def _made_by(system: System, named: dict[str, str | None], how: dict[str, Any], wording: Any) -> str:
    """Who takes part in the dialogues of a file, and how: a file is not continued by others."""
    import hashlib
    from dataclasses import replace

    from ..jobs.made_by import signature

    def who(name: str) -> str:
        if name.startswith(("http://", "https://")):
            return name
        return signature(name, replace(system, model=name).kept_as)

    parts = {role: who(name or system.model) for role, name in named.items()}
    prompts = hashlib.sha256(repr(wording).encode()).hexdigest()[:8]
    said = parts | {key: value for key, value in how.items() if value is not None} | {"prompts": prompts}
    return " ".join(f"{key}={value}" for key, value in said.items())


def _many(
    files: list[Path],
    output: Path,
    html: Path | None,
    truth: Path | None,
    run: Any,
    workers: int,
    partners: Any,
    by: str,
    asked: Any,
) -> int:
    """Dialogues to a file, with a bar. `asked` is the wording for questions about captions, where they are wanted."""
    from rich.progress import Progress

    from ..dialogue.files import converse_files, transcripts_in, truth_in

    known = truth_in(truth) if truth is not None else None
    with Progress(console=console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("dialogues", total=len(files))

        def done(name: str, result: Any) -> None:
            progress.advance(task)
            if isinstance(result, str):
                remark(f"error: {result}" if result.startswith(name) else f"error: {name}: {result}")

        failed = converse_files(files, output, run, done, by, workers, partners)  # loaded once, before the threads begin
    if html is not None:
        from ..dialogue.page import comparison_page

        made, carried = transcripts_in(output), None
        if asked is not None:
            from ..dialogue.agents import AgentError
            from ..dialogue.from_caption import answered_from_captions

            try:
                carried = answered_from_captions(made, partners().summariser, asked)
            except AgentError as error:
                remark(f"error: questions about the captions: {error}")
                failed += 1
        comparison_page(html, made, known, carried)
    return int(failed > 0)


class _Agents:
    """Makes agents of what the options name; each system is loaded once, each endpoint has one account."""

    def __init__(self, system: System, account: Account, folder: Path | None):
        self._system, self._account, self._folder = system, account, folder
        self._made: dict[str, Any] = {}
        self._systems: dict[str, Any] = {}

    def assistant(self, model: str) -> Any:
        """The system of that name."""
        from dataclasses import replace

        if model not in self._systems:
            self._systems[model] = replace(self._system, model=model).as_named.load()
        return self._systems[model]

    def __call__(self, named: str | None) -> Any:
        name = named or self._system.model
        if name not in self._made:
            self._made[name] = endpoint(name, self._account, self._folder) if is_endpoint(name) else self._local(name)
        return self._made[name]

    def _local(self, name: str) -> Any:
        from ..dialogue.agents import LocalAgent

        return LocalAgent(self.assistant(name), name)
