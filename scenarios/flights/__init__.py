"""The flights of New York in 2013: parcels that may fly with any of several carriers, each of which really flew."""
