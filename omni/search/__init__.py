"""Find things by description: an index of pictures, words, prices and attributes."""

from omni.search.encoder import Encoded, ItemEncoder
from omni.search.index import Index
from omni.search.items import Item, Unusable, read_items
from omni.search.recent import Recent
from omni.search.request import Wish, read_request
from omni.search.results import Found, Hit, Report

__all__ = [
    "Encoded",
    "Found",
    "Hit",
    "Index",
    "Item",
    "ItemEncoder",
    "Recent",
    "Report",
    "Unusable",
    "Wish",
    "read_items",
    "read_request",
]
