"""What a request is answered with that cannot be granted: a status and one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi.responses import JSONResponse

BUG = "The service failed through a fault of its own; its log says more."

# What Starlette and the server beneath raise by themselves, in our words.
_SENTENCES = {
    400: "The request is not one that can be understood; check how it is made.",
    404: "There is nothing at this address; GET /openapi.json lists all that there is.",
    405: "This address does not take that method; GET /openapi.json says which it takes.",
    413: "The request is too large; send less.",
    416: "The range lies outside of the file; ask for one within its length.",
}


class Refused(Exception):
    """A request is not granted: `status`, and one sentence with what is wrong and what mends it."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """The answer."""
        return refusal(self.status, self.sentence, self.headers)


def refusal(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An answer of one sentence."""
    # What came from a client may hold halves of surrogates, which no encoding takes.
    clean = sentence.encode("utf-8", "replace").decode()
    return JSONResponse({"error": clean}, status, dict(headers or {}))


def usual_sentence(status: int) -> str:
    """What is said of a status that something beneath this service gave."""
    return _SENTENCES.get(status, BUG if status >= 500 else _SENTENCES[400])
