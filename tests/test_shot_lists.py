"""Lists of shots as files: what they say, and what is said of bad ones."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dc_rt import UserError
from dc_rt.media import Timeline
from dc_rt.media.shot_lists import read_starts, taken_starts

FILM = Timeline.even(500, Fraction(24))
NTSC = Timeline.even(50_000, Fraction(30000, 1001))

EDL = """TITLE: A scene
FCM: NON-DROP FRAME

001  AX       V     C        00:00:00:00 00:00:01:00 01:00:00:00 01:00:01:00
* FROM CLIP NAME: one.mov
002  AX       A2    C        00:00:00:00 00:00:01:00 01:00:00:12 01:00:01:00
003  AX       AA/V  C        00:00:07:00 00:00:08:00 01:00:01:00 01:00:02:05
004  AX       V     C        00:00:09:00 00:00:09:00 01:00:02:05 01:00:02:05
004  BX       V     D    012 00:00:00:00 00:00:01:00 01:00:02:05 01:00:03:05
005  BX       B     C        00:00:00:00 00:00:01:00 01:00:03:05 01:00:04:05
"""
DROP_FRAME = """FCM: DROP FRAME
001  AX  V  C  00:00:00;00 00:00:01;00 01:00:00;00 01:01:00;02
002  AX  V  C  00:00:00;00 00:00:01;00 01:01:00;02 01:10:00;00
003  AX  V  C  00:00:00;00 00:00:01;00 01:10:00;00 01:11:00;02
"""
PYSCENEDETECT = """Timecode List:,00:00:01.200,00:00:03.040
Scene Number,Start Frame,Start Timecode,Start Time (seconds),End Frame
1,1,00:00:00.000,0.000,30
2,31,00:00:01.200,1.200,76
3,77,00:00:03.040,3.040,137
"""


def starts_of(text, name="shots.csv", timeline=FILM):
    path = Path(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_starts(path, timeline)


@pytest.mark.parametrize(
    "text",
    [
        "0\n30\n76\n",
        "30\n76",
        "frame\n30\n76\n",
        "\ufeffFrames\r\n30\r\n76\r\n",
        "Einstellung\n30\n76\n",
        "30,76",
        "30; 76;",
        "name\tStart Frame\na\t0\nb\t30\nc\t76\n",
        '"frame","note"\n"30","rain, at night"\n"76",""\n',
        PYSCENEDETECT,
        PYSCENEDETECT.split("\n", 1)[1],
    ],
)
def test_frame_numbers_are_read_from_csv_as_people_and_programs_write_it(text):
    assert starts_of(text) == (0, 30, 76)


def test_an_edl_gives_the_record_in_points_of_its_video_events():
    assert starts_of(EDL, "cut.edl") == (0, 24, 53, 77)
    assert starts_of(EDL, "CUT.EDL", Timeline.even(500, Fraction(24000, 1001))) == (0, 24, 53, 77)
    assert starts_of(EDL, "cut.edl", Timeline.even(500, Fraction(25))) == (0, 25, 55, 80)


def test_drop_frame_leaves_out_two_numbers_of_every_minute_but_each_tenth():
    assert starts_of(DROP_FRAME, "cut.edl", NTSC) == (0, 1800, 17982)
    assert starts_of(DROP_FRAME.replace("FCM: DROP FRAME\n", ""), "cut.edl", NTSC) == (0, 1800, 17982)


def test_an_edl_counts_the_frames_that_a_video_lacks():
    """Of a video at a constant rate whose frames 10 to 19 are missing, time codes behind them still fit."""
    times = np.delete(np.arange(500), range(10, 20))
    gap = Timeline(Fraction(1, 24), times, 500, Fraction(24), True)
    assert starts_of(EDL, "cut.edl", gap) == (0, 14, 43, 67)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("30\n20\n", "has frame 20 after frame 30; sort it"),
        ("30\n30\n", "has frame 30 after frame 30"),
        ("30\n500\n", "from frame 500 on, and the video's 500 frames end with 499"),
        ("30\nx\n", r"no frame number in line 2 \('x'\)"),
        ("-3\n", r"no frame number in line 1 \('-3'\)"),
        ("1.5\n", r"no frame number in line 1 \('1.5'\)"),
        ("30\n\n\n٣\n", "no frame number in line 4"),
        ("a,b\n1,2\n", "several columns, of which none is called frame"),
        (PYSCENEDETECT.replace("2,31", "2,0"), r"no frame number in line 4 \('0'\); give whole numbers from 1 on"),
        ("a,frame\n1\n", r"no frame number in line 2 \(''\)"),
        ("", "lists no shot"),
        (b"\x00\x00\x00\x20ftypisom", "is no list of shots but something else"),
        (b"\xff\xd8\xff\xe0", "is no list of shots but something else"),
        ("9" * 200_000, "is no list of shots but something else"),
    ],
)
def test_a_bad_csv_is_one_sentence(text, what):
    with pytest.raises(UserError, match=rf"^The list of shots='shots\.csv' .*{what}.*\.$"):
        starts_of(text)


@pytest.mark.parametrize(
    ("text", "timeline", "what"),
    [
        ("TITLE: none\n", FILM, "lists no shot"),
        (EDL, Timeline.even(60, Fraction(24)), "from frame 77 on, and the video's 60 frames end with 59"),
        (EDL.replace("01:00:03:05", "01:00:01:05"), FILM, "has frame 29 after frame 53"),
        (EDL.replace("02:05", "02:24"), FILM, r"in line 8 \(01:00:02:24\) that there is none of at 24 frames/s"),
        (EDL, Timeline.even(500, Fraction(25, 2)), "tells frames by time code, and the video has 12.5 frames/s"),
        (DROP_FRAME, FILM, "of drop frame in line 2 .* none of at 24 frames/s"),
        (DROP_FRAME, Timeline.even(50_000, Fraction(30)), "of drop frame in line 2 .* none of at 30 frames/s"),
        (DROP_FRAME.replace("01:01:00;02", "01:01:00;00"), NTSC, r"in line 3 \(01:01:00;00\) that there is none"),
        (
            EDL,
            Timeline(Fraction(1, 1000), np.cumsum([0, 40, 55, 30]), 165, Fraction(24), False),
            "a variable frame rate; give a CSV",
        ),
    ],
)
def test_a_bad_edl_is_one_sentence(text, timeline, what):
    with pytest.raises(UserError, match=rf"^The list of shots='cut\.edl' .*{what}.*\.$"):
        starts_of(text, "cut.edl", timeline)


def test_what_cannot_be_read_is_one_sentence():
    with pytest.raises(UserError, match=r"shots='none\.csv' cannot be read \(No such file or directory\); give none"):
        read_starts(Path("none.csv"), FILM)
    Path("folder").mkdir()
    with pytest.raises(UserError, match=r"^The list of shots='folder' cannot be read"):
        read_starts(Path("folder"), FILM)


def test_a_shot_begins_with_its_first_frame_that_is_taken():
    assert taken_starts((0, 30, 76), 1, 500) == (0, 30, 76)
    assert taken_starts((0, 30, 76), 4, 125) == (0, 8, 19)
    assert taken_starts((0, 5, 6, 9, 76), 4, 125) == (0, 2, 3, 19)
    assert taken_starts((0, 30, 76), 1, 76) == (0, 30)
