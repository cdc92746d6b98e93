"""A result in space for browsers on other machines, by viser (docs/scene.md)."""

from __future__ import annotations

import io
import math
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError
from dc_rt.geometry import Lens
from dc_rt.installation import install_command
from dc_rt.listening import address, is_loopback, listen
from dc_rt.media.colormap import inferno, to_uint16
from dc_rt.stored import Stored
from dc_rt.view.frames import frames_of

MOST_POINTS = 75_000
"""Of a frame as it is first shown: what a line of 100 megabits takes 18 times a second."""

_LARGEST_STEP = 16
_LARGEST_FPS = 60.0
# From here on the half floats that points are sent in are too coarse for what is near.
_FARTHEST_OF_HALF = 1000.0
_POLL_SECONDS = 0.05


class Thinned:
    """Frames with every so-manyth pixel across and down, read by a thread into a temporary file.

    So any frame that was read once is there at once, and memory does not grow with their number.
    """

    def __init__(self, stored: Stored, numbers: range, step: int) -> None:
        """Begin to read.

        Args:
            stored: the result.
            numbers: of the frames.
            step: takes pixels 0, `step`, 2 `step` and so on.
        """
        self.step = step
        self.shape = -(-stored.height // step), -(-stored.width // step)
        self.num_read = 0
        self._error: UserError | None = None
        self._size = self.shape[0] * self.shape[1]
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with this
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(stored, numbers), daemon=True)
        self._thread.start()

    def get(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Depth, float32 [h,w], and picture, uint8 [h,w,3], of the `index`th frame, which must have been read."""
        with self._lock:
            self._file.seek(index * 5 * self._size)
            contents = self._file.read(5 * self._size)
        depth = np.frombuffer(contents, np.uint16, self._size).reshape(self.shape)
        image = np.frombuffer(contents, np.uint8, offset=2 * self._size).reshape(*self.shape, 3)
        return depth.astype(np.float32) / np.float32(65535), image

    def check(self) -> None:
        """Raise `UserError` where one of them could not be read."""
        if self._error:
            raise self._error

    def wait(self, count: int) -> None:
        """Until so many have been read; raises `UserError` as `check` does."""
        while self.num_read < count:
            self.check()
            self._thread.join(_POLL_SECONDS)

    def _read(self, stored: Stored, numbers: range) -> None:
        try:
            for index, frame in enumerate(frames_of(stored, numbers)):
                if self._is_closed.is_set():
                    return
                taken = np.s_[:: self.step, :: self.step]
                contents = to_uint16(frame.depth[taken]).tobytes() + frame.image[taken].tobytes()
                with self._lock:
                    self._file.seek(index * len(contents))
                    self._file.write(contents)
                    self._file.flush()
                self.num_read = index + 1
        except UserError as error:
            self._error = error
        except OSError as error:
            self._error = UserError(
                f"The frames cannot be kept in {tempfile.gettempdir()} ({error.strerror}); name another folder in "
                "$TMPDIR, or take fewer of them."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed.set()
        self._thread.join()
        with suppress(OSError):  # of a full disk, which was said
            self._file.close()


def serve(
    stored: Stored,
    lens: Lens,
    frames: range,
    host: str,
    port: int,
    say: Callable[[str], None],
) -> None:
    """Show it to browsers until Ctrl-C or SIGTERM.

    Args:
        stored: the result.
        lens: at first; browsers change it.
        frames: numbers of those that are shown.
        host: to listen on. Nobody is asked for a password: whoever reaches it sees the result.
        port: to listen on; 0 for any.
        say: is told where it is, in a sentence.

    Raises:
        UserError: viser is not installed, nothing can listen there, or the result cannot be read.
    """
    if not find_spec("viser"):
        raise UserError(f"dc-rt view --viser needs viser, which is not installed; run `{install_command('viser')}`.")
    # viser takes the next port where one is taken, and waits for ever where it can listen nowhere.
    with listen(host, port) as tried:
        where, port = address(tried), tried.getsockname()[1]
    with until_signalled() as ended, _server(host, port) as server:
        if server.get_port() != port:
            raise UserError(f"Port {port} was taken this instant; run it again.")
        say(f"Look at {stored.name} on {where}; Ctrl-C ends it.")
        if not is_loopback(host):
            say("Whoever reaches this machine sees it: nobody is asked for a password.")
        Show(server, stored, lens, frames).run(ended)


@contextmanager
def until_signalled() -> Iterator[threading.Event]:
    """An event that is set at SIGTERM; at Ctrl-C the body ends, in good order."""
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        yield ended
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _server(host: str, port: int) -> Iterator[Any]:
    """A server of viser's, which prints nothing, and goes through no other machine."""
    import viser

    class Server(viser.ViserServer):
        """Its button, which is not shown, and every page that is open could ask for an address that all can reach."""

        def request_share_url(self, verbose: bool = True) -> str | None:
            return None

    with redirect_stdout(io.StringIO()):
        server = Server(host=host, port=port, verbose=False)
    try:
        yield server
    finally:
        with redirect_stdout(io.StringIO()):
            server.stop()


class Show:
    """What browsers see: the points of a frame, and what moves and changes them."""

    def __init__(self, server: Any, stored: Stored, lens: Lens, frames: range) -> None:
        self._server = server
        self._stored = stored
        self._lens = lens
        self._frames = frames
        self._changed = threading.Event()
        self._refusal = ""
        pixels = stored.height * stored.width
        step = min(math.ceil(math.sqrt(pixels / MOST_POINTS)), _LARGEST_STEP)
        server.gui.configure_theme(control_layout="collapsible", show_logo=False, show_share_button=False)
        server.gui.set_panel_label(stored.name)
        server.scene.set_up_direction("+y")
        self._add_controls(max(step, 1))
        server.on_client_connect(self._place_camera)

    def run(self, ended: threading.Event) -> None:
        """Show and play until it is to end; raises `UserError` where the result cannot be read."""
        while not ended.is_set():
            with Thinned(self._stored, self._frames, int(self._step.value)) as thinned:
                self._play(thinned, ended)

    def _add_controls(self, step: int) -> None:
        gui, frames, is_film = self._server.gui, self._frames, len(self._frames) > 1
        fps = min(max(self._stored.fps / self._frames.step, 1.0), _LARGEST_FPS)
        self._said = gui.add_markdown("")
        with gui.add_folder("Playback"):
            self._frame = gui.add_slider(
                "Frame",
                min=frames[0],
                max=frames[-1] if is_film else frames[0] + 1,
                step=frames.step if is_film else 1,
                initial_value=frames[0],
                disabled=not is_film,
            )
            self._playing = gui.add_checkbox("Playing", initial_value=is_film, disabled=not is_film)
            before, after = gui.add_button("Previous"), gui.add_button("Next")
            self._fps = gui.add_slider("Frames a second", min=1.0, max=_LARGEST_FPS, step=0.1, initial_value=fps)
        with gui.add_folder("Points"):
            self._colours = gui.add_dropdown("Colours", ("Picture", "Depth"))
            self._size = gui.add_slider("Size", min=0.2, max=5.0, step=0.1, initial_value=1.0)
            self._step = gui.add_slider("Pixel step", min=1, max=_LARGEST_STEP, step=1, initial_value=step)
        with gui.add_folder("Space"):
            self._focal = gui.add_number("Focal length", initial_value=self._lens.focal, step=0.001)
            is_metric = self._stored.lens is not None  # metres were measured, and are no choice
            self._near = gui.add_number("Near", initial_value=self._lens.near, step=0.001, disabled=is_metric)
            self._far = gui.add_number("Far", initial_value=self._lens.far, step=0.001, disabled=is_metric)
            gui.add_button("Reset camera").on_click(lambda _: self._place_all_cameras())
        # The frame is looked at all the time, and also changes by itself.
        for control in (self._playing, self._colours, self._size, self._focal, self._near, self._far):
            control.on_update(lambda _: self._changed.set())
        before.on_click(lambda _: self._go(-1))
        after.on_click(lambda _: self._go(1))

    def _go(self, by: int) -> None:
        self._playing.value = False
        self._frame.value = self._frames[(self._index() + by) % len(self._frames)]

    def _index(self) -> int:
        """Which of the frames is asked for."""
        chosen = round((int(self._frame.value) - self._frames[0]) / self._frames.step)
        return min(max(chosen, 0), len(self._frames) - 1)

    def _place_camera(self, client: Any) -> None:
        """To where the pictures were taken from."""
        client.camera.fov = 2 * math.atan(0.5 * self._shape_of_picture() / self._lens.focal)
        client.camera.position = 0.0, 0.0, 0.0
        client.camera.look_at = 0.0, 0.0, -2.0
        client.camera.up_direction = 0.0, 1.0, 0.0

    def _place_all_cameras(self) -> None:
        for client in self._server.get_clients().values():
            self._place_camera(client)

    def _shape_of_picture(self) -> float:
        """Its height to its width."""
        return self._stored.height / (self._stored.width * float(self._stored.pixel_aspect))

    def _play(self, thinned: Thinned, ended: threading.Event) -> None:
        """Draw what changes, and go on to the next frame when its time has come and it was read.

        Until it is to end, or other pixels are to be taken.
        """
        # Points at a distance of 1 with a focal length of 1: all others are multiples of them.
        flat = np.ones((self._stored.height, self._stored.width), np.float32)
        directions = Lens(1, 1, 2).points(flat, float(self._stored.pixel_aspect))[:: thinned.step, :: thinned.step]
        due = time.monotonic()
        self._changed.set()
        shown = -1
        while not ended.is_set() and int(self._step.value) == thinned.step:
            thinned.check()
            index = self._index()
            if self._playing.value and shown == index and time.monotonic() >= due:
                following = (index + 1) % len(self._frames)
                if following < thinned.num_read:
                    index = following
                    self._frame.value = self._frames[index]
            if index < thinned.num_read and (index != shown or self._changed.is_set()):
                self._changed.clear()
                due = max(due + 1 / self._fps.value, time.monotonic())
                self._draw(thinned, index, directions)
                shown = index
            self._tell(thinned, shown)
            if shown == index:
                self._changed.wait(min(max(due - time.monotonic(), 0.001), _POLL_SECONDS))
            else:  # it has not been read
                ended.wait(_POLL_SECONDS)

    def _draw(self, thinned: Thinned, index: int, directions: NDArray[np.float32]) -> None:
        """In units of the nearest, whatever they are: browsers show what is about so far away."""
        depth, image = thinned.get(index)
        lens = self._chosen_lens()
        unit = Lens(lens.focal, 1, lens.far / lens.near)
        points = directions * unit.distance(depth)[..., None] / np.array([lens.focal, lens.focal, 1], np.float32)
        colours = image if self._colours.value == "Picture" else inferno(depth)
        # Neighbours on a wall half way back touch one another; half way in the sense of perspective.
        spacing = thinned.step / self._stored.width / lens.focal
        looks = {
            "point_size": float(self._size.value) * spacing * math.sqrt(unit.far),
            "precision": "float16" if unit.far <= _FARTHEST_OF_HALF else "float32",
        }
        self._server.scene.add_point_cloud(
            "/points", points.reshape(-1, 3), colours.reshape(-1, 3), point_shape="square", **looks
        )
        self._server.flush()

    def _chosen_lens(self) -> Lens:
        """The one that was chosen, or the last that was possible."""
        try:
            self._lens = Lens(float(self._focal.value), float(self._near.value), float(self._far.value))
            self._refusal = ""
        except UserError as error:
            self._refusal = str(error)
        return self._lens

    def _tell(self, thinned: Thinned, shown: int) -> None:
        """The line above the controls."""
        number = self._frames[max(shown, 0)]
        line = f"Frame {number}, {self._stored.times[number]:.2f} s"
        if thinned.num_read < len(self._frames):
            line += f"; {thinned.num_read} of {len(self._frames)} read"
        line = self._refusal or line
        if line != self._said.content:
            self._said.content = line
