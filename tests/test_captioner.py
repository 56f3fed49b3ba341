"""ChatCaptioner: the algorithm step by step, every nasty reply, and that nothing loops."""

import pytest
from PIL import Image
from scripted import Scripted

from minigpt4.dialogue.agents import AgentError, CostCeiling
from minigpt4.dialogue.captioner import Partners, Rules, converse
from minigpt4.dialogue.nouns import nouns
from minigpt4.dialogue.prompts import SHIPPED, load_prompts
from minigpt4.dialogue.trimming import (
    answer_in,
    frame_and_question,
    is_question,
    question_in,
    summary_in,
    unsure,
    without_frames,
)
from minigpt4.errors import UserError
from minigpt4.inference.answer import Answer
from minigpt4.metrics.words import said as said_words

PICTURE = Image.new("RGB", (64, 48), "green")
WORDING = load_prompts()["image"]
NASTY = ["", "Question:", "Answer:", "Frame_99: what?", "{}", "\0", "x" * 10_000_000]
THINGS = "dog cat horse cow sheep bird tree house car boat hat shoe ball bench lamp".split()


def numbered(form="Question: What about number {}?"):
    """A questioner with a new question each time, that sums up when it is told to."""
    count = iter(range(1000))
    return Scripted(lambda p: "Summary: All of it." if "Summary:" in p.messages[-1]["content"] else form.format(next(count)))


def growing():
    """An answerer that sees a new thing each time."""
    things = iter(THINGS * 9)
    return Scripted(lambda p: f"There is a {next(things)}.")


def repr_of(said):
    return repr(said)[:20]


def talk(questioner, answerer, **rules):
    return converse(PICTURE, Partners(questioner=questioner, answerer=answerer), WORDING, Rules(**rules))


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("Question: What is it?", "What is it?"),
        ("Sure! Question: A? Question: What\nis it?", "What is it?"),
        ("Question: What is it? Answer: A dog.", "What is it?"),
        ("Answer: What is it?", "What is it?"),
        ("Question: Answer: What? Answer: no", "What?"),
        ("What is it?", "What is it?"),
        ("", ""),
    ],
)
def test_a_question_is_trimmed(said, question):
    assert question_in(said) == question


def test_answers_and_summaries_are_trimmed():
    assert answer_in("A dog.\nQuestion: What else? Answer: cat") == "A dog."
    assert answer_in("Question: What?") == ""
    assert answer_in("Answer: a\n dog") == "a dog"
    assert summary_in("Here. Summary: A dog\nruns.") == "A dog runs."
    assert len(answer_in("x" * 10_000_000)) == 2000
    assert [unsure(t) for t in ("I don't know.", "I'm not sure", "It is unclear", "A surely known dog")] == [True] * 3 + [False]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Frame_3: What is there?", (3, "What is there?")),
        ("Question: Frame_3: What is there? Answer: no", (3, "What is there?")),
        ("frame 3: What? Frame_4: And?", (3, "What?")),
        ("Frame_9: What is there?", None),
        ("Frame_99: What is there?", None),
        ("Frame_0: What is there?", None),
        ("Frame_" + "9" * 5000 + ": What?", None),
        ("Frame_3:", None),
        ("What is there?", None),
    ],
)
def test_a_question_about_a_frame_is_read_or_refused(said, found):
    assert frame_and_question(said, 8) == found


def test_sentences_about_frames_go():
    assert without_frames("A man runs. In frame 3 he falls. Frame_4 is dark. He stands up.") == "A man runs. He stands up."


def test_nouns_are_the_words_that_name_things():
    assert nouns("Two black dogs are running quickly on the grass with a woman and three children.") == [
        "dog",
        "grass",
        "woman",
        "child",
    ]


@pytest.mark.parametrize("mark", ["'", "\u2019"])
def test_shortened_words_name_nothing(mark):
    """ "isn" was a new noun, so that a dialogue without anything new went on, and a detector looked for it."""
    text = "The man doesn't hold the dog's ball; they aren't there. It isn't a bus. Wasn't it? I don't know.".replace("'", mark)
    assert nouns(text) == ["man", "dog", "ball", "bus"]
    assert unsure(f"I don{mark}t know.")
    assert said_words(f"It isn{mark}t.") == ["it", "isn't"]


def test_the_algorithm_goes_as_published():
    questioner, answerer = numbered(), growing()
    done = talk(questioner, answerer, rounds=4)
    assert [round.question for round in done.rounds] == [
        WORDING.fill("first_question"), *(f"What about number {i}?" for i in range(3))]  # fmt: skip
    assert [round.by for round in done.rounds] == ["fixed", "questioner", "questioner", "questioner"]
    assert (done.plain, done.caption, done.stopped, done.joined) == ("There is a dog.", "All of it.", "rounds", False)
    assert [round.new_nouns for round in done.rounds] == [[thing] for thing in THINGS[:4]]
    # what the questioner is told before its second question
    asked = questioner.prompts[1].messages
    assert asked[0] == {"role": "system", "content": WORDING.fill("task")}
    assert asked[1:-1] == [
        {"role": "assistant", "content": f"Question: {WORDING.fill('first_question')}"},
        {"role": "user", "content": "Answer: There is a dog."},
        {"role": "assistant", "content": "Question: What about number 0?"},
        {"role": "user", "content": "Answer: There is a cat."},
    ]
    assert asked[-1] == {"role": "system", "content": WORDING.fill("next")}
    assert (questioner.prompts[0].max_new_tokens, questioner.prompts[-1].max_new_tokens) == (30, 100)
    assert not any(prompt.images for prompt in questioner.prompts)
    # what the answerer is told: the last round, and the question
    told = answerer.prompts[2].messages[0]["content"]
    assert "There is a cat." in told
    assert "There is a dog." not in told
    assert told.endswith("Question: What about number 1?\nAnswer:")
    assert done.spent["prompt_tokens"] == 10 * 8


@pytest.mark.parametrize(("context", "shown"), [(0, []), (1, ["cat"]), (2, ["dog", "cat"]), (-1, ["dog", "cat"])])
def test_the_answerer_is_told_so_many_rounds(context, shown):
    answerer = growing()
    talk(numbered(), answerer, rounds=3, context=context)
    told = answerer.prompts[2].messages[0]["content"]
    assert [thing for thing in THINGS[:3] if f"There is a {thing}." in told] == shown


def test_it_ends_when_nothing_new_comes():
    done = talk(numbered(), Scripted(["A dog.", "A cat.", "A black dog.", "One dog.", "A bird."]))
    assert (done.stopped, len(done.rounds)) == ("nothing new", 4)
    done = talk(numbered(), Scripted(["A dog."]), patience=0)
    assert (done.stopped, len(done.rounds)) == ("rounds", 10)


def test_a_question_that_comes_again_is_redirected_then_replaced():
    questioner, answerer = Scripted(["Question: What is it?"]), growing()
    done = talk(questioner, answerer, rounds=4)
    assert [round.by for round in done.rounds] == ["fixed", "questioner", "spare", "spare"]
    assert [round.question for round in done.rounds[2:]] == list(WORDING.spare_questions[:2])
    assert len(questioner.prompts) == 1 + 3 + 3 + 3  # two rounds of three attempts, and a summary that is a question again
    redirect = questioner.prompts[2].messages[-1]["content"]
    assert "What is it?" in redirect
    assert [prompt.attempt for prompt in questioner.prompts[1:4]] == [0, 1, 2]


@pytest.mark.parametrize("said", ["yes", "A cat.", "The background. It is green.", "..."])
def test_what_is_no_question_is_asked_for_again(said):
    """The pocket model as questioner said "yes", which was put to the answerer."""
    again = iter(["Question: what is behind it"])
    done = talk(Scripted(lambda p: next(again, said) if p.attempt == 1 else said), growing(), rounds=3)
    assert [(round.by, round.question) for round in done.rounds[1:]] == [
        ("questioner", "what is behind it"),
        ("spare", WORDING.spare_questions[0]),
    ]


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("Is it green", True),
        ("Isn\u2019t it green", True),
        ("In what room is it", True),
        ("Please describe the cat.", True),
        ("And the cat?", True),
        ("\u4f60\u770b\u5230\u4ec0\u4e48", True),  # Chinese, without a question mark
        ("Yes.", False),
        ("There is a cat.", False),
        ("", False),
    ],
)
def test_what_is_a_question(text, asks):
    assert is_question(text) == asks


def test_yes_is_no_answer_to_what_asks_for_more():
    answerer = Scripted(["A dog.", "Yes.", "A cat.", "yes", "No", "no"])
    questions = iter(["What else?", "Is it green?", "Who is there?"])
    asks = Scripted(lambda p: next(questions, "Summary: All of it."))
    done = talk(asks, answerer, rounds=4, patience=0)
    assert [(round.answer, round.flaws) for round in done.rounds[1:]] == [("A cat.", []), ("yes", []), ("no", ["unsure"])]
    assert [prompt.messages[0]["content"] for prompt in answerer.prompts if prompt.attempt] == [
        "What else?", "Who is there?", "Who is there?"]  # fmt: skip
    assert not done.rounds[-1].useful


def test_without_questions_left_it_ends():
    done = talk(Scripted([""]), growing(), rounds=100)
    assert (done.stopped, len(done.rounds)) == ("no question", 1 + len(WORDING.spare_questions))
    assert done.joined  # the summariser said nothing either
    assert done.caption.startswith("There is a dog. There is a cat.")


def test_empty_answers_are_asked_for_again_and_stay_out_of_the_history():
    questioner = numbered()
    answers = iter(["A dog.", "", "  ", "Question: no", "A cat."])
    answerer = Scripted(lambda p: next(answers, "A bird."))
    done = talk(questioner, answerer, rounds=3, patience=0)
    assert [(round.answer, round.flaws) for round in done.rounds] == [("A dog.", []), ("", ["empty"]), ("A cat.", [])]
    assert answerer.prompts[2].messages[0]["content"] == "What about number 0?"  # in plainer words
    assert [prompt.attempt for prompt in answerer.prompts] == [0, 0, 1, 2, 0]
    last = questioner.prompts[1].messages
    assert len(last) == 4
    assert "led nowhere" in last[-1]["content"]


def test_unsure_and_repeated_answers_turn_the_questioner_elsewhere():
    questioner = numbered()
    done = talk(questioner, Scripted(["A dog.", "I do not know.", "A dog.", "A cat."]), rounds=4, patience=0)
    assert [round.flaws for round in done.rounds] == [[], ["unsure"], ["repeated"], []]
    cues = [prompt.messages[-1]["content"] for prompt in questioner.prompts[:3]]
    assert ["led nowhere" in cue for cue in cues] == [False, True, True]


@pytest.mark.parametrize("nasty", [*NASTY, AgentError("HTTP 500")], ids=repr_of)
def test_nothing_loops_whatever_is_said(nasty):
    questioner, answerer = Scripted([nasty]), Scripted(["A dog.", nasty])
    done = talk(questioner, answerer, rounds=5, patience=0)
    assert 1 <= len(done.rounds) <= 5
    assert done.caption
    assert len(questioner.prompts) <= 5 * 3
    assert len(answerer.prompts) <= 5 * 3
    assert len(done.caption) <= 2000 * 5


def test_an_answerer_that_fails_at_once_is_an_error_and_no_empty_transcript():
    with pytest.raises(AgentError, match="HTTP 500"):
        talk(numbered(), Scripted([AgentError("HTTP 500")]))


def test_at_the_cost_ceiling_what_was_found_is_kept():
    answers = iter(["A dog.", "A cat."])
    answerer = Scripted(lambda p: next(answers, CostCeiling("the ceiling of 1 is reached")))
    done = talk(numbered(), answerer)
    assert (done.stopped, done.caption, done.joined) == ("cost ceiling", "A dog. A cat.", True)
    assert done.problems == ["the ceiling of 1 is reached"]


def test_a_third_partner_finds_things_and_shows_them_from_up_close():
    class Detector:
        asked = []

        def detect(self, image, phrase):
            self.asked.append(phrase)
            return Answer(f"<p>{phrase}</p> {{<25><25><75><75>}}" if phrase == "dog" else "none")

    questioner, answerer = numbered(), Scripted(["A dog and a unicorn.", "A collar.", "A hat."])
    partners = Partners(questioner=questioner, answerer=answerer, detector=Detector())
    done = converse(PICTURE, partners, WORDING, Rules(rounds=3))
    assert Detector.asked == ["dog", "unicorn", "hat"]
    assert done.rounds[1].by == "detector"
    assert done.rounds[1].question == WORDING.fill("crop", noun="dog")
    assert answerer.prompts[1].images[0].size == (38, 28)  # the box and a tenth of its sides around it
    assert done.unfound == ["unicorn", "hat"]
    assert "unicorn, hat" in questioner.prompts[-1].messages[-1]["content"]


def test_parts_of_an_image_that_bring_nothing_new_do_not_end_the_dialogue():
    class Detector:
        def detect(self, image, phrase):
            return Answer(f"<p>{phrase}</p> {{<25><25><75><75>}}")

    said = iter(["A dog, a cat and a bird.", "A dog.", "A cat.", "A bird.", "A hat."])
    partners = Partners(questioner=numbered(), answerer=Scripted(lambda p: next(said, "A shoe.")), detector=Detector())
    done = converse(PICTURE, partners, WORDING, Rules(rounds=5))
    assert [round.by for round in done.rounds] == ["fixed", "detector", "detector", "detector", "questioner"]


def test_a_listener_hears_everything_in_order():
    heard = []
    converse(PICTURE, Partners(questioner=numbered(), answerer=growing()), WORDING, Rules(rounds=2), lambda *e: heard.append(e))
    assert [kind for kind, _ in heard] == ["question", "answer", "question", "answer", "caption"]
    assert heard[-1] == ("caption", "All of it.")


def test_prompts_can_be_changed_and_mistakes_are_named(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("image:\n  first_question: What {{now}}?\n")
    assert load_prompts(file)["image"].fill("first_question") == "What {now}?"
    assert load_prompts(file)["video"] == load_prompts()["video"]
    for text, says in [
        ("image: {frist_question: x}", "did you mean first_question"),
        ("pictures: {}", "unknown key 'pictures'"),
        ("image: {answer: '{questoin}'}", "{questoin} is not filled in here; there are {context}, {question}"),
        ("image: {next: '{'}", "image.next"),
        ("image: {next: 3}", "must be text"),
        ("image: {spare_questions: 'What?'}", "list of questions"),
        ("[", "not YAML"),
        ("- a", "expected a mapping"),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=says.replace("{", r"\{")):
            load_prompts(file)
    with pytest.raises(UserError, match=r"nothing\.yaml"):
        load_prompts(tmp_path / "nothing.yaml")
    assert SHIPPED.is_file()
