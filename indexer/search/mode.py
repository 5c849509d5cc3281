"""Which way to search a collection when nobody has said."""

from typing import Final, Literal

# As many bytes of vectors as two cores compare in about 10 ms: below that nothing is to be gained.
SMALL_BYTES: Final = 2**28


def choose(items: int, width: int, shortlist: str, memory_bytes: int) -> tuple[Literal["exact", "two-stage"], str]:
    """The mode to search `items` vectors of `width` float32 components with, and the reason in a sentence.

    Only modes that answer in distances of vectors are chosen. `shortlist` is what the first of two stages goes by, "" where
    there is none; `memory_bytes` what the vectors may take up in memory.
    """
    size = items * width * 4
    vectors = f"{items} vectors take {_shown(size)}"
    if not shortlist:
        return "exact", f"{vectors}, and there is no short-list to search by"
    if size > memory_bytes:
        return "two-stage", f"{vectors}, more than {_shown(memory_bytes)} of memory; the short-list ({shortlist}) takes less"
    if size > SMALL_BYTES:
        return "two-stage", f"{vectors}: comparing every one would take longer than a short-list ({shortlist})"
    return "exact", f"{vectors}: comparing every one is fast enough"


def _shown(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
