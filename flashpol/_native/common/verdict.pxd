# What every recogniser says of the bytes so far. Recognisers have no socket, no clock and no allocation.

cdef enum MatchVerdict:         # Verdict in bindings/recognisers.pxi is its Python face
    V_MORE = 0                  # more bytes are needed
    V_MATCH = 1
    V_OTHER = 2                 # these bytes are something else, whatever follows
