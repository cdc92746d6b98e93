"""What a batch runs: folders, patterns, lists of videos, and which of them cannot be run together."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from dc_rt import DepthCrafter, Job, Outputs, Sampling, Source, UserError
from dc_rt.batch.inputs import Refused, find_tasks
from dc_rt.job import Task
from dc_rt.options import Options
from media_helpers import moving_gradient, write_clip

OUT = Path("out")


def touch(*names: str) -> None:
    """Empty files: nothing is read of a video before it is run."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def found(*inputs: str, save_folder: Path = OUT, **options: Any) -> list[Task | Refused]:
    return find_tasks([Path(each) for each in inputs], save_folder, Options.by_name(options))


def places(entries: list[Task | Refused]) -> list[tuple[str, str]]:
    """Videos and where their results go, with slashes; none may be refused."""
    assert not [entry for entry in entries if isinstance(entry, Refused)], entries
    return [(Path(entry.video).as_posix(), Path(entry.save_folder).as_posix()) for entry in entries]


def refused(entries: list[Task | Refused]) -> dict[str, str]:
    """Sentences by what they are of, with slashes."""
    found = (entry for entry in entries if isinstance(entry, Refused))
    return {entry.video.replace("\\", "/"): str(UserError(entry.sentence)).replace("\\", "/") for entry in found}


def test_a_folder_gives_its_videos_and_folders_of_images_in_its_tree() -> None:
    touch("in/b.mp4", "in/A.MOV", "in/notes.txt", "in/deep/er/c.webm", "in/plates/x.2.png", "in/plates/x.10.png")
    touch("in/.hidden.mp4", "in/.b.spool/input", "in/._b.mp4", "in/.cache/d.mp4")
    assert places(found("in")) == [
        ("in/A.MOV", "out"),
        ("in/b.mp4", "out"),
        ("in/deep/er/c.webm", "out/deep/er"),
        ("in/plates", "out"),
    ]


def test_a_folder_of_images_is_one_video_called_after_the_folder() -> None:
    touch("shots/take 1/f.1.png", "shots/take 1/f.2.png", "shots/take 1/reference.mov")
    assert places(found("shots")) == [("shots/take 1", "out"), ("shots/take 1/reference.mov", "out/take 1")]
    assert places(found("shots/take 1")) == [("shots/take 1", "out"), ("shots/take 1/reference.mov", "out")]


BELOW_X = [("in/x/c.mov", "out/x"), ("in/x/y/d.mov", "out/x/y"), ("in/x/y/e.mp4", "out/x/y")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("in/*.mp4", [("in/a.mp4", "out"), ("in/b.mp4", "out")]),
        ("in/?.mp4", [("in/a.mp4", "out"), ("in/b.mp4", "out")]),
        ("in/**/*.mp4", [("in/a.mp4", "out"), ("in/b.mp4", "out"), ("in/x/y/e.mp4", "out/x/y")]),
        ("in/x/**/*.mov", [("in/x/c.mov", "out"), ("in/x/y/d.mov", "out/y")]),
        ("in/*/*.mov", [("in/x/c.mov", "out/x")]),
        ("in/*", [("in/a.mp4", "out"), ("in/b.mp4", "out"), ("in/p", "out"), ("in/q", "out"), *BELOW_X]),
        ("in/*/*.png", [("in/p/*.png", "out/p"), ("in/q/*.png", "out/q")]),
        ("in/*/f.%02d.png", [("in/p/f.%02d.png", "out/p"), ("in/q/f.%02d.png", "out/q")]),
        ("in/p/*.png", [("in/p/*.png", "out")]),
        ("in/p/f.##.png", [("in/p/f.##.png", "out")]),
        ("in/*.raw", [("in/odd.raw", "out")]),
        ("in/x/**", [("in/x/c.mov", "out"), ("in/x/y/d.mov", "out/y"), ("in/x/y/e.mp4", "out/y")]),
    ],
)  # fmt: skip
def test_a_pattern_means_videos_below_its_fixed_part(pattern: str, expected: list[tuple[str, str]]) -> None:
    touch("in/a.mp4", "in/b.mp4", "in/odd.raw", "in/x/c.mov", "in/x/y/d.mov", "in/x/y/e.mp4", "in/.h/z.mp4")
    touch("in/p/f.01.png", "in/p/f.02.png", "in/q/f.01.png")
    assert places(found(pattern)) == expected


def test_what_is_named_is_run_whatever_it_is_called() -> None:
    touch("clip.bin", "plates/shot.0001.png")
    assert places(found("clip.bin", "plates/shot.%04d.png", "not there.mp4")) == [
        ("clip.bin", "out"),
        ("plates/shot.%04d.png", "out"),
        ("not there.mp4", "out"),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="there no name has these letters")
def test_a_file_that_is_called_like_a_pattern_is_that_file() -> None:
    touch("in/what*.mp4", "in/whatever.mp4", "in/[1-3].mp4", "in/2.mp4")
    assert places(found("in/what*.mp4")) == [("in/what*.mp4", "out")]
    assert places(found("in/[1-3].mp?")) == [("in/[1-3].mp4", "out")]  # brackets are no class of letters


def test_a_video_that_is_named_twice_is_there_once() -> None:
    touch("in/sub/a.mp4", "in/b.mp4")
    expected = [("in/b.mp4", "out"), ("in/sub/a.mp4", "out/sub")]
    again = ("in/sub/a.mp4", "./in/../in/b.mp4", str(Path("in").absolute()), "in/**/*.mp4")
    assert places(found("in", *again)) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="there only some users may make links")
def test_folders_that_all_link_to_one_another_are_looked_through_once_each() -> None:
    numbers = range(12)  # 12! ways lead through them
    for here in numbers:
        touch(f"in/{here}/{here}.mp4")
        for there in numbers:
            Path(f"in/{here}/to{there}").symlink_to(Path("..", str(there)))
    videos = {f"{here}.mp4" for here in numbers}
    for inputs in ("in", "in/**/*.mp4", "in/**"):
        entries = places(found(inputs))
        assert len(entries) == len(numbers)
        assert {Path(video).name for video, _ in entries} == videos
    # By each name that a pattern has for it.
    assert places(found("in/**/7/*.mp4")) == [("in/7/7.mp4", "out/7")]
    assert places(found("in/3/to7/*.mp4")) == [("in/3/to7/7.mp4", "out")]
    assert places(found("in/**/to7/7.mp4"))[0][0].endswith("/to7/7.mp4")


@pytest.mark.skipif(sys.platform == "win32", reason="there only some users may make links")
def test_links_are_followed_but_not_in_circles() -> None:
    touch("elsewhere/a.mp4", "in/b.mp4")
    Path("in/linked").symlink_to(Path("elsewhere").absolute())
    Path("in/up").symlink_to("..")
    Path("in/again.mp4").symlink_to("b.mp4")
    expected = [("in/again.mp4", "out"), ("in/b.mp4", "out"), ("in/linked/a.mp4", "out/linked")]
    assert [place for place in places(found("in")) if "/up/" not in place[0]] == expected


def test_results_of_earlier_runs_are_no_inputs(bundled: DepthCrafter) -> None:
    Path("in").mkdir()
    clip = write_clip(Path("in/clip.mp4"), moving_gradient(4, 64, 64))
    write_clip(Path("in/clip_depth_by_hand.mp4"), moving_gradient(4, 64, 64))
    outputs = Outputs(("depth.mp4", "vis.mp4", "input.mp4", "png", "iw3", "side-by-side"))
    Job(bundled, clip, Sampling(steps=1, window_size=4, overlap=1), Source(max_res=64), outputs, "in").run()
    assert len([*Path("in").rglob("*.png")]) == 4 + 2 * 4
    everything = [("in/clip.mp4", "in"), ("in/clip_depth_by_hand.mp4", "in")]
    assert places(found("in", save_folder=Path("in"))) == everything
    assert places(found("in/*.mp4", save_folder=Path("in"))) == everything
    # What was put in the place of a result is another video.
    write_clip(Path("in/clip_vis.mp4"), moving_gradient(7, 96, 96))
    assert ("in/clip_vis.mp4", "out") in places(found("in"))


def test_the_save_folder_is_not_searched_where_it_lies_in_an_input() -> None:
    touch("a.mp4", "demo_output/b.mp4", "demo_output/frames/0.png")
    assert places(found(".", save_folder=Path("demo_output"))) == [("a.mp4", "demo_output")]
    assert places(found("demo_output", save_folder=Path("demo_output/again"))) == [
        ("demo_output/b.mp4", "demo_output/again"),
        ("demo_output/frames", "demo_output/again"),
    ]


def test_videos_that_would_write_one_name_are_both_refused_and_no_others() -> None:
    touch("in/a.mp4", "in/a.mov", "in/b.mp4", "in/sub/a.mp4", "other/b.mp4")
    entries = found("in", "other/b.mp4")
    assert set(refused(entries)) == {"in/a.mp4", "in/a.mov", "in/b.mp4", "other/b.mp4"}
    assert "in/a.mov and in/a.mp4 would both write out/a_depth.mp4" in refused(entries)["in/a.mp4"]
    assert [entry.video for entry in entries if isinstance(entry, Task)] == [str(Path("in/sub/a.mp4"))]


def test_names_that_differ_in_case_clash_where_the_file_system_folds_them() -> None:
    touch("one/CLIP.mp4", "two/clip.mp4")
    Path("Probe").touch()
    clash = {"one/CLIP.mp4", "two/clip.mp4"} if Path("pROBE").exists() else set()
    assert set(refused(found("one/CLIP.mp4", "two/clip.mp4"))) == clash


def test_results_that_would_be_written_over_another_video_are_refused() -> None:
    touch("in/clip.mp4", "in/clip_depth.mp4")
    entries = found("in", save_folder=Path("in"), overwrite=True)
    assert "is to be read, and would be overwritten" in refused(entries)["in/clip.mp4"]
    assert [Path(entry.video).name for entry in entries if isinstance(entry, Task)] == ["clip_depth.mp4"]


def write_csv(text: str, name: str = "list.csv", encoding: str = "utf-8") -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(text.encode(encoding))
    return name


def test_a_csv_gives_options_and_folders_a_video() -> None:
    touch("lists/in/a.mp4", "lists/b.mov", "far/c.mp4")
    assert places(found(write_csv("video\n~no such user/a.mp4\n"))) == [("~no such user/a.mp4", "out/~no such user")]
    far = Path("far/c.mp4").absolute()
    name = write_csv(
        "video, max_res,num-denoising-steps,save_folder,outputs,audio\r\n"
        'in/a.mp4,512,,,"npz, exr",yes\r\n'
        "\r\n"
        f"b.mov,,2,elsewhere/x,,\r\n"
        f'"{far}",,,,,no\r\n',
        "lists/l.csv",
        "utf-8-sig",  # as spreadsheets write it
    )
    a, b, c = found(name, max_res=256, steps=3)
    assert isinstance(a, Task)
    assert isinstance(b, Task)
    assert isinstance(c, Task)
    assert places([a, b, c]) == [
        ("lists/in/a.mp4", "out/in"),
        ("lists/b.mov", "out/elsewhere/x"),
        (far.as_posix(), "out"),
    ]
    assert (a.options.source.max_res, a.options.sampling.steps, a.options.outputs.audio) == (512, 3, True)
    assert a.options.outputs.names == ("npz", "exr")
    assert (b.options.source.max_res, b.options.sampling.steps, b.options.outputs.audio) == (256, 2, False)
    assert c.options == Options.by_name({"max_res": 256, "steps": 3})
    assert a.skip_done


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_csv_is_read_as_a_spreadsheet_with_another_separator_writes_it(separator: str) -> None:
    rows = [('"video"', "max_res", "outputs"), ("a.mp4", "64", '"npz,exr"'), ("", "", ""), ("b.mp4", "", "")]
    name = write_csv("".join(separator.join(row) + "\r\n" for row in rows), encoding="utf-8-sig")
    a, b = found(name)
    assert places([a, b]) == [("a.mp4", "out"), ("b.mp4", "out")]
    assert isinstance(a, Task)
    assert (a.options.source.max_res, a.options.outputs.names) == (64, ("npz", "exr"))


def test_a_name_that_is_not_there_in_a_list_of_another_encoding_says_which_to_save_it_in() -> None:
    entries = refused(found(write_csv("video\nStraße.mp4\nplates/Straße.%04d.exr\n", encoding="latin-1")))
    assert list(entries) == ["list.csv line 2"]
    assert "save the list in UTF-8" in entries["list.csv line 2"]


def test_json_lines_give_the_same() -> None:
    lines: list[dict[str, Any]] = [
        {"video": "in/a.mp4", "max_res": 512, "outputs": ["npz"], "audio": True, "seed": None},
        {"video": "plates/s.%04d.exr", "save_folder": "p", "exposure": 1.5},
    ]
    Path("l.ndjson").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    a, b = found("l.ndjson")
    assert places([a, b]) == [("in/a.mp4", "out/in"), ("plates/s.%04d.exr", "out/p")]
    assert isinstance(a, Task)
    assert isinstance(b, Task)
    assert a.options.outputs.names == ("npz",)
    assert b.options.source.exposure == 1.5


@pytest.mark.parametrize(
    ("name", "text", "line", "sentence"),
    [
        ("l.csv", "video,max_res\na.mp4,big\nb.mp4,64\n", "l.csv line 2", "max_res must be a whole number, not 'big'"),
        ("l.csv", "video,sampler\nb.mp4,\na.mp4,fast\n", "l.csv line 3", "There is no sampler='fast'"),
        ("l.csv", "video,max_res\nb.mp4,64\na.mp4,64,5\n", "l.csv line 3", "it has 3 cells, and there are 2 columns"),
        ("l.csv", "max_res,video\n64,b.mp4\n64,\n", "l.csv line 3", "video must be a path"),
        ("l.csv", 'video\nb.mp4\n"a.mp4\n', "l.csv line 3", "it is no line of CSV"),
        ("l.csv", "video,outputs\nb.mp4,\na.mp4,-\n", "l.csv line 3", "outputs='-' is one stream"),
        ("l.csv", "video\nb.mp4\n-\n", "l.csv line 3", "- is none"),
        ("l.jsonl", '{"video": "b.mp4"}\n{"video": "a.mp4",}\n', "l.jsonl line 2", "it is no JSON"),
        ("l.jsonl", '{"video": "b.mp4"}\n["a.mp4"]\n', "l.jsonl line 2", "it is no JSON object"),
        ("l.jsonl", '{"video": "b.mp4"}\n{"video": 5}\n', "l.jsonl line 2", "video must be a path, and 5 is none"),
        (
            "l.jsonl",
            '{"video": "b.mp4"}\n{"video": "a.mp4", "save_folder": []}\n',
            "l.jsonl line 2",
            "save_folder must",
        ),
        ("l.jsonl", '{"video": "b.mp4"}\n{"video": "a.mp4", "colour": 1}\n', "l.jsonl line 2", "no option 'colour'"),
        ("l.jsonl", '{"video": "b.mp4"}\n{"video": "a\\u0000.mp4"}\n', "l.jsonl line 2", "video must be a path"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_run(name: str, text: str, line: str, sentence: str) -> None:
    entries = found(write_csv(text, name))
    assert list(refused(entries)) == [line]
    assert sentence in refused(entries)[line]
    assert refused(entries)[line].endswith(".")
    assert [entry.video for entry in entries if isinstance(entry, Task)] == ["b.mp4"]


@pytest.mark.parametrize(
    ("name", "contents", "sentence"),
    [
        ("l.csv", b"a.mp4\nb.mp4\n", "has no column video"),
        ("l.csv", "video,max_res\na.mp4,64\n".encode("utf-16"), "save it as CSV in UTF-8"),
        ("l.csv", b"video,seed,seed\na.mp4,1,2\n", "two columns that are called 'seed'"),
        ("l.csv", b"\x00\x01\xff\xfe" * 100, "has no column video"),
        ("l.csv", None, "cannot be read"),
        ("l.csv", b"video\n", "There is no video in l.csv; write a line for each"),
        ("l.jsonl", b"\n", "There is no video in l.jsonl; write a line for each"),
    ],
)
def test_a_list_that_is_none_is_one_failure(name: str, contents: bytes | None, sentence: str) -> None:
    touch("b.mp4")
    if contents is not None:
        Path(name).write_bytes(contents)
    entries = found(name, "b.mp4")
    ((where, said),) = refused(entries).items()
    assert where == name
    assert sentence in said
    assert [entry.video for entry in entries if isinstance(entry, Task)] == ["b.mp4"]


def test_what_a_list_says_of_a_video_counts_whatever_else_names_it() -> None:
    touch("in/a.mp4", "in/b.mp4")
    name = write_csv("video,seed\nin/a.mp4,7\n")
    for inputs in (("in", name), (name, "in")):
        tasks = {Path(entry.video).name: entry for entry in found(*inputs) if isinstance(entry, Task)}
        assert len(tasks) == 2
        assert tasks["a.mp4"].options.sampling.seed == 7
        assert tasks["b.mp4"].options.sampling.seed == Sampling.seed


def test_one_video_may_be_run_in_several_ways_into_folders_of_their_own() -> None:
    same, ways = "video,seed,save_folder\na.mp4,1,x\n", "a.mp4,2,y\n"
    assert [place for _, place in places(found(write_csv(same + ways)))] == ["out/x", "out/y"]
    assert [place for _, place in places(found(write_csv(same + "./a.mp4,1,x\n")))] == ["out/x"]
    assert set(refused(found(write_csv(same + "a.mp4,2,x\n")))) == {"a.mp4"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_names_that_are_no_text_and_others_are_found_and_listed() -> None:
    Path("in").mkdir()
    names = [b"caf\xe9.mp4", "Ünïcode 影.mp4".encode(), b"a b\n.mp4", b"[red]x.mp4"]
    for name in names:
        Path(os.fsdecode(b"in/" + name)).touch()
    assert {os.fsencode(Path(video).name) for video, _ in places(found("in"))} == set(names)
    Path("l.csv").write_bytes(b"video\nin/caf\xe9.mp4\n" + "in/Ünïcode 影.mp4\n".encode())
    assert [os.fsencode(Path(video).name) for video, _ in places(found("l.csv"))] == names[:2]


@pytest.mark.parametrize("inputs", [["empty"], ["empty", "in/*.mp4"], ["in/**/*.mp4"]])
def test_inputs_of_which_nothing_is_a_video_are_one_sentence(inputs: list[str]) -> None:
    touch("in/notes.txt")
    Path("empty").mkdir()
    with pytest.raises(UserError, match=r"There is no video in .*; name one that is called otherwise\.$"):
        found(*inputs)


def test_an_input_without_a_video_is_refused_beside_others() -> None:
    touch("a.mp4")
    Path("empty").mkdir()
    entries = found("empty", "a.mp4")
    assert list(refused(entries)) == ["empty"]
    assert len(entries) == 2


@pytest.mark.parametrize(("inputs", "options"), [(["-"], {}), (["a.mp4"], {"outputs": "-"})])
def test_nothing_comes_from_or_goes_to_a_pipe(inputs: list[str], options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"- is none|outputs='-'"):
        found(*inputs, **options)
