"""A photograph is no neighbour of itself, and what the metric cannot compare has no neighbours."""

from pathlib import Path

from indexer.index import open_index
from indexer.search.others import other_items
from indexer.store import Query


def test_an_item_is_left_out_of_its_own_neighbours(index: Path) -> None:
    store = open_index(index)
    item = int(store.ids()[4])
    features = store.vectors([item, int(store.ids()[9])])
    hits = store.search(features, Query(11)).ids_QK
    assert hits[0, 0] == item
    found = other_items(store, features, Query(10), item)
    assert found.tolist() == [[i for i in row if i != item][:10] for row in hits.tolist()]
    assert other_items(store, features, Query(10), None).tolist() == hits[:, :10].tolist()
    assert other_items(store, features, Query(40), item)[0].tolist()[len(store) - 1 :] == [-1] * (41 - len(store))
    store.close()
