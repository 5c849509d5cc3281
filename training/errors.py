"""The errors that FC7 raises on purpose.

Each is mapped once to an exit status (training/program.py) and once to an HTTP status (service/errors.py). A message names the
value that is wrong and what was expected or what to do.
"""


class FC7Error(Exception):
    """Base of every error raised on purpose; its text is meant for the person at the keyboard."""


class BadImage(FC7Error):
    """Bytes that do not decode to a picture: truncated, damaged, or of a kind that is not accepted."""


class NotAnImage(BadImage):
    """Bytes that are not an image in any accepted format."""


class ImageTooLarge(FC7Error):
    """More bytes or more pixels than the limits allow; raised before memory is spent on decoding."""


class BadValue(FC7Error):
    """A value from outside that is out of range or of the wrong kind, and the name of the field it was given for."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field} must be {expected}, got {value!r}")
        self.field = field
        self.value = value


class BadSettings(FC7Error):
    """Settings of a program that do not go together; the text names them."""


class NotFound(FC7Error):
    """Something asked for by name or id that does not exist."""


class Gone(NotFound):
    """What there was and is no more, because something else lies where it was."""


class NotReady(FC7Error):
    """A model, an index or a data set that is not there yet; the text says which command makes it."""


class Mismatch(FC7Error):
    """Two things that must agree and do not; the text names both."""


class NotFinite(Mismatch):
    """A model gives what is not a finite number for some photographs of a batch: its weights do not go with them."""

    def __init__(self, what: str, positions: list[int]) -> None:
        super().__init__(f"the model gives no finite {what} for {len(positions)} photographs; its weights are wrong")
        self.positions = positions  # in the batch


class TrainingDiverged(FC7Error):
    """The loss became infinite or not a number; the last finished epoch remains on disk."""


class TryAgain(FC7Error):
    """What cannot be done now and can be soon; nothing is wrong with what was asked for."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason  # one of a few words, to count by


class Busy(TryAgain):
    """Another process holds what this one needs to write."""

    def __init__(self, text: str) -> None:
        super().__init__("busy", text)
