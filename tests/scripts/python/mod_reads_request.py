# query: first
# query: second
"""A module that looks at the request as it is loaded is loaded for each."""
import _reads

print("loaded for", _reads.QUERY)
