"""The shared memory in which the processes of one server count, and the totals over all of its generations.

    layout    words and blocks of counters, as the C code lays them out
    status    the state of the server, of a process and of an accept queue
    shared    the mappings of one generation: counters, and the connections of each client address
    totals    the sums over all generations

Every word is 64 bits and has one writer at a time, so readers need no lock.
"""
