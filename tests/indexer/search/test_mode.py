"""Which mode a collection is searched with where nobody has said."""

from indexer.search.mode import choose


def test_without_a_short_list_there_is_only_exact() -> None:
    assert choose(10_000_000, 4096, "", 0)[0] == "exact"


def test_few_vectors_are_compared_one_by_one() -> None:
    mode, reason = choose(16_384, 4096, "codes", 2**30)
    assert mode == "exact"
    assert "16384 vectors take 256.0 MiB" in reason


def test_more_vectors_are_searched_in_two_stages() -> None:
    mode, reason = choose(16_385, 4096, "codes", 2**40)
    assert mode == "two-stage"
    assert "a short-list (codes)" in reason


def test_vectors_beyond_the_memory_allowed_are_searched_in_two_stages() -> None:
    mode, reason = choose(1000, 4096, "principal", 10 * 2**20)
    assert mode == "two-stage"
    assert "15.6 MiB, more than 10.0 MiB of memory" in reason
