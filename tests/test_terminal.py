"""Colour and progress bars, on a real terminal: a pseudo-terminal whose every byte is looked at."""

import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from media_helpers import moving_gradient, write_clip

pty = pytest.importorskip("pty", reason="there are no pseudo-terminals")

COLOUR = re.compile(rb"\x1b\[(?:[0-9]*;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")
ESCAPE = b"\x1b"
VARIABLES = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE")

INFER = ("dc_rt.cli", "infer", "clip.mp4", "--num-denoising-steps", "1", "--window-size", "8", "--overlap", "2")
COMMANDS = {
    "an error": ("dc_rt.cli", "infer", "missing.mp4"),
    "a progress bar": INFER,
    "the doctor": ("dc_rt.cli", "doctor"),
    "help": ("dc_rt.cli", "infer", "--help"),
    "a wrong option": ("dc_rt.cli", "infer", "--nonsense"),
    "an error of dc-export": ("dc_export.cli", "build", "missing", "--flavour", "nonsense"),
}


def on_a_terminal(*words, **variables):
    """What a command writes to a terminal, standard output and standard error together."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "100"} | variables
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        written = bytearray()
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not piece:
                break
            written += piece
    os.close(ours)
    assert b"Traceback" not in written, written.decode()
    return bytes(written)


@pytest.fixture(params=COMMANDS)
def command(request):
    write_clip(Path("clip.mp4"), moving_gradient(3, 64, 64), Fraction(24))
    return COMMANDS[request.param]


def test_a_terminal_shows_colour(command):
    assert COLOUR.search(on_a_terminal(*command))


def test_no_color_is_honoured(command):
    assert not COLOUR.search(on_a_terminal(*command, NO_COLOR="1"))


def test_a_dumb_terminal_gets_text_alone(command):
    assert ESCAPE not in on_a_terminal(*command, TERM="dumb")


def test_a_bar_is_drawn_without_colour_too():
    write_clip(Path("clip.mp4"), moving_gradient(3, 64, 64), Fraction(24))
    assert b"\x1b[2K" in on_a_terminal(*INFER, NO_COLOR="1")


def test_a_pipe_gets_colour_only_where_it_is_forced():
    def piped(**variables):
        environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
        command = [sys.executable, "-m", *COMMANDS["an error"]]
        return subprocess.run(command, capture_output=True, check=False, env=environment).stderr

    assert ESCAPE not in piped(TERM="xterm-256color")
    assert COLOUR.search(piped(TERM="xterm-256color", FORCE_COLOR="1"))


def test_a_name_is_shown_as_it_is():
    assert b"There is no file [bold]:fire:.mp4;" in on_a_terminal("dc_rt.cli", "infer", "[bold]:fire:.mp4")
