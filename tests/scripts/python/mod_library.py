# query: first
# query: second
"""What an installed package changes as it is loaded stays: the package does."""
import os
import string
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "_installed", "site-packages"))
import logging

import _changes_much

if os.environ["QUERY_STRING"] == "first":
    import made_by_the_finder.one
import made_by_the_finder.two

print("Content-Type: text/plain\n", flush=True)
print(made_by_the_finder.two.__name__, string.of_the_package, logging.getLogger("_changes_much").level)
logging.getLogger("_changes_much").debug("seen")
print(_changes_much.pool())
