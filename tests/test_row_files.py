"""Files of rows that are not quite JSON Lines: read where they can be, else named in one line."""

import gzip
import json
import random

import pytest
from PIL import Image

from minigpt4.data.check import check
from minigpt4.data.formats import build_source
from minigpt4.data.formats.files import load_json
from minigpt4.data.formats.rows import prompts_of
from minigpt4.errors import UserError
from minigpt4.io.jsonl import read_rows, write_rows

ROWS = [{"image": f"{name}.png", "question": f"Is it {name}?", "answer": "Yes."} for name in ("a", "é")]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()
ARRAY = json.dumps(ROWS, indent=1, ensure_ascii=False).encode()
DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "data",
    [
        LINES,
        ARRAY,
        gzip.compress(LINES, mtime=0),
        gzip.compress(ARRAY, mtime=0),
        b"\xef\xbb\xbf" + LINES,
        b"\xef\xbb\xbf" + ARRAY,
    ],
    ids=["lines", "array", "packed lines", "packed array", "marked lines", "marked array"],
)
def test_rows_are_read_however_they_are_kept(tmp_path, data):
    (tmp_path / "rows").write_bytes(data)
    assert list(read_rows(tmp_path / "rows")) == [(1, ROWS[0]), (2, ROWS[1])]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"image,question\na.jpg,what\nb.jpg,who\n", "looks like CSV"),
        (LINES.decode().encode("utf-16"), "UTF-16"),
        (b"[{}, ", "begins as a JSON array, but is not JSON"),
        (DEEP, "nested too deeply"),
    ],
    ids=["csv", "utf-16", "broken array", "deep"],
)
def test_what_is_something_else_is_named_once(tmp_path, data, said):
    (tmp_path / "rows").write_bytes(data)
    ((number, error),) = read_rows(tmp_path / "rows")
    assert number == 1
    assert said in str(error)
    with pytest.raises(UserError):
        build_source("jsonl", name="d", annotations=str(tmp_path / "rows"))


@pytest.mark.parametrize("data", [LINES, ARRAY, gzip.compress(LINES, mtime=0), gzip.compress(ARRAY, mtime=0)])
def test_training_reads_arrays_and_packed_files_as_it_reads_lines(tmp_path, data):
    (tmp_path / "rows").write_bytes(data)
    for row in ROWS:
        Image.new("RGB", (8, 8)).save(tmp_path / row["image"])
    source = build_source("jsonl", name="d", annotations=str(tmp_path / "rows"))
    questions = [source.sample(i, random.Random(0)).turns[0].question for i in range(len(source))]
    assert questions == [row["question"] for row in ROWS]
    assert [source.images(i)[0].name for i in range(len(source))] == [row["image"] for row in ROWS]


def test_a_row_of_an_array_that_is_wrong_is_named(tmp_path):
    (tmp_path / "rows").write_text(json.dumps([{"question": "?", "answer": "!"}, {"question": "?"}, 3]))
    source = build_source("jsonl", name="d", annotations=str(tmp_path / "rows"), malformed="skip")
    assert len(source) == 1
    assert [problem.message for problem in source.malformed] == [
        f'{tmp_path}/rows:2: no "answers"',
        f"{tmp_path}/rows[3]: expected a JSON object, found int",
    ]


def test_training_names_what_is_no_json_lines(tmp_path):
    (tmp_path / "rows").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(UserError, match="CSV"):
        build_source("jsonl", name="d", annotations=str(tmp_path / "rows"))


def test_a_damaged_packing_and_deep_nesting_are_one_line_in_every_reader(tmp_path):
    (tmp_path / "rows").write_bytes(gzip.compress(LINES)[:-9])
    with pytest.raises(UserError, match="gzip packing is damaged"):
        list(read_rows(tmp_path / "rows"))
    (tmp_path / "rows").write_bytes(b'{"image": ' + DEEP)
    with pytest.raises(UserError, match="nested too deeply"):
        build_source("jsonl", name="d", annotations=str(tmp_path / "rows"))
    with pytest.raises(UserError, match="nested too deeply"):
        load_json(str(tmp_path / "rows"))


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path):
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbfLook!\n")
    assert prompts_of(str(tmp_path / "prompts.txt")) == ("Look!",)


def test_lines_end_at_line_feeds_alone(tmp_path):
    (tmp_path / "prompts.txt").write_text("What is\u2028this?\nAnd\u0085that?\r\n", encoding="utf-8", newline="")
    assert prompts_of(str(tmp_path / "prompts.txt")) == ("What is\u2028this?", "And\u0085that?")


def test_half_of_a_surrogate_pair_is_named_with_its_row(tmp_path):
    """Before a training begins, and by `data check`; in a published dataset too."""
    rows = [{"question": "Fine?", "answer": "Yes \U0001f600."}, {"question": "Half?", "answer": "Yes \ud83d."}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = r'rows.jsonl:2: "answer" has half of a surrogate pair in it \(\\ud83d at character 4\)'
    with pytest.raises(UserError, match=said):
        build_source("jsonl", annotations=str(tmp_path / "rows.jsonl"))
    (report,) = check([("jsonl", {"annotations": str(tmp_path / "rows.jsonl")})]).datasets
    assert [(problem.kind, problem.where) for problem in report.problems] == [("malformed row", f"{tmp_path}/rows.jsonl:2")]
    (tmp_path / "gqa.json").write_text(json.dumps([{"image": "a.jpg", "question": "W\udc00?", "answer": "x"}]))
    with pytest.raises(UserError, match=r'gqa.json\[0\]: "question" has half of a surrogate pair'):
        build_source("gqa", annotations=str(tmp_path / "gqa.json"))


def test_a_whole_file_of_rows_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("old\n")

    def broken():
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(path, broken())
    assert path.read_text() == "old\n"
    write_rows(path, [{"a": "\u2028"}])
    assert [row for _, row in read_rows(path)] == [{"a": "\u2028"}]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="rows.jsonl: cannot be written"):
        write_rows(tmp_path / "no" / "rows.jsonl", [])
