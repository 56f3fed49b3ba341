"""Frames of video, against clips whose every frame is known; and dialogues about them."""

import numpy as np
import pytest
from PIL import Image
from scripted import Scripted

from minigpt4.dialogue.agents import AgentError
from minigpt4.dialogue.captioner import Partners, Rules
from minigpt4.dialogue.prompts import load_prompts
from minigpt4.dialogue.video import converse_video
from minigpt4.errors import UserError
from minigpt4.media.video import frames_of

av = pytest.importorskip("av", reason="PyAV is not installed")
WORDING = load_prompts()["video"]


def clip(path, shades, rate=10, size=(64, 48), gap=None):
    """A video with one grey shade a frame; with `gap` (frame, seconds), time stands still there."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i, shade in enumerate(shades):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), shade, np.uint8), format="rgb24")
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def shades(frames):
    return [int(np.asarray(frame.image).mean()) for frame in frames]


def test_uniform_frames_are_the_middles_of_equal_parts(tmp_path):
    file = clip(tmp_path / "a.mp4", range(0, 240, 6))  # 40 frames, 4 seconds
    found = frames_of(file, 4)
    assert [frame.index for frame in found] == [5, 15, 25, 35]
    assert [frame.time for frame in found] == pytest.approx([0.5, 1.5, 2.5, 3.5])
    assert shades(found) == pytest.approx([30, 90, 150, 210], abs=4)
    assert len(frames_of(file, 200)) == 40


def test_interval_frames_come_every_so_many_seconds(tmp_path):
    file = clip(tmp_path / "a.mp4", range(40))
    assert [frame.time for frame in frames_of(file, 99, "interval", 1.5)] == pytest.approx([0.0, 1.5, 3.0])
    assert [frame.index for frame in frames_of(file, 2, "interval", 1.0)] == [0, 10]
    assert len(frames_of(file, 99, "interval", 0.001)) == 40


def test_change_finds_the_cuts(tmp_path):
    file = clip(tmp_path / "a.mp4", [20] * 12 + [220] * 9 + [90] * 14)
    assert [frame.index for frame in frames_of(file, 3, "change")] == [0, 12, 21]
    assert len(frames_of(clip(tmp_path / "b.mp4", [20]), 3, "change")) == 1


def test_frames_are_made_smaller_and_a_single_frame_is_enough(tmp_path):
    [frame] = frames_of(clip(tmp_path / "a.mp4", [128], size=(640, 480)), 8, side=320)
    assert frame.image.size == (320, 240)


def test_what_is_no_video_is_said(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name, says in (
        ("bad.mp4", "not a video"),
        ("empty.mp4", "not a video"),
        ("none.mp4", "no such file"),
        (".", "no such"),
    ):
        with pytest.raises(UserError, match=says):
            frames_of(tmp_path / name)
    file = clip(tmp_path / "a.mp4", [1, 2])
    for options, says in (({"count": 0}, "from 1 to"), ({"how": "best"}, "uniform"), ({"interval": 0}, "above 0")):
        with pytest.raises(UserError, match=says):
            frames_of(file, **options)


def test_an_image_is_no_video(tmp_path):
    for kind in ("jpg", "png", "webp"):
        Image.new("RGB", (64, 48)).save(path := tmp_path / f"a.{kind}")
        with pytest.raises(UserError, match="an image, not a video"):
            frames_of(path)


def test_a_video_that_is_cut_short_gives_what_it_has(tmp_path):
    data = clip(tmp_path / "a.avi", list(range(0, 250, 5)) * 4).read_bytes()
    (tmp_path / "short.avi").write_bytes(data[: len(data) // 2])
    found = frames_of(tmp_path / "short.avi", 4)
    assert len(found) == 4
    assert found[-1].index < 199


# dialogue --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return frames_of(clip(tmp_path_factory.mktemp("clip") / "a.mp4", range(0, 200, 5)), 4)


def summed(prompt):
    return "Write down" in prompt.messages[-1]["content"]


def test_the_questioner_chooses_frames_and_segments_are_merged(frames):
    questions = iter(["Frame_3: What is there?", "Question: Frame_1: Who is there? Answer: no", "Frame_4: What now?"])
    questioner = Scripted(lambda p: next(questions))
    things = iter("dog cat bird cow".split())
    answerer = Scripted(lambda p: f"A {next(things)}.")
    sums = iter(["A dog and a bird.", "In frame 3, a cat.", "A cat and a cow.", "First a dog, then a cow."])
    summariser = Scripted(lambda p: next(sums))
    partners = Partners(questioner=questioner, answerer=answerer, summariser=summariser)
    done = converse_video(frames, "a.mp4", partners, WORDING, Rules(rounds=4), segments=2)
    assert [(r.frame, r.question, r.answer) for r in done.rounds[1:]] == [
        (3, "What is there?", "A cat."), (1, "Who is there?", "A bird."), (4, "What now?", "A cow.")]  # fmt: skip
    assert [r.time for r in done.rounds] == pytest.approx([0.5, 2.5, 0.5, 3.5])
    assert [part["text"] for part in done.segments] == ["A dog and a bird.", "A cat and a cow."]
    assert (done.segments[1]["start"], done.segments[1]["end"]) == (2.5, 3.5)
    assert done.caption == "First a dog, then a cow."
    task = questioner.prompts[0].messages[0]["content"]
    assert "numbered from 1 to 4" in task
    assert "3 at 2.5 s" in task
    images = [np.asarray(prompt.images[0]).mean() for prompt in answerer.prompts]
    assert images == pytest.approx([np.asarray(frames[i].image).mean() for i in (0, 2, 0, 3)])
    facts = summariser.prompts[1].messages[0]["content"]
    assert "2.5 s: What is there? A cat." in facts
    assert "bird" not in facts


@pytest.mark.parametrize("nasty", ["Frame_99: What?", "What?", "", "Frame_0: x", AgentError("HTTP 429")])
def test_a_questioner_that_never_names_a_frame_ends_the_loop(frames, nasty):
    things = iter(f"x{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(600))
    questioner, answerer = Scripted([nasty]), Scripted(lambda p: f"A {next(things)}.")
    done = converse_video(frames, "a.mp4", Partners(questioner=questioner, answerer=answerer), WORDING, Rules(rounds=300))
    assert done.stopped == "no question"
    assert len(done.rounds) == 1 + 4 * len(WORDING.spare_questions)
    assert {r.frame for r in done.rounds} == {1, 2, 3, 4}
    assert len(questioner.prompts) <= len(done.rounds) * 3 + 5 * 3
    assert done.caption
    assert not done.caption.startswith("Frame")


def test_every_frame_is_seen_before_it_gets_boring(frames):
    done = converse_video(frames, "a.mp4", Partners(questioner=Scripted([""]), answerer=Scripted(["A dog."])), WORDING)
    assert done.stopped == "nothing new"
    assert {r.frame for r in done.rounds} == {1, 2, 3, 4}


def test_a_summary_that_insists_on_frames_loses_those_sentences(frames):
    summariser = Scripted(["A dog runs. In frame 2 it sits."])
    partners = Partners(questioner=Scripted([""]), answerer=Scripted(["A dog."]), summariser=summariser)
    assert converse_video(frames, "a.mp4", partners, WORDING, Rules(rounds=5)).caption == "A dog runs."
