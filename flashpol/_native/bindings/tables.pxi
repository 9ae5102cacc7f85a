# How a list of names and the layout of a counter block are made from C. Both are checked when the module is imported.

cdef tuple numbered(int count, dict names):
    """The names of an enum in the order of its numbers, 0 to `count` - 1, none of which may be missing."""
    if sorted(names) != list(range(count)):
        raise AssertionError(f"{count} numbers have these names: {names}")
    return tuple([names[number] for number in range(count)])


cdef dict laid_out(size_t size, list rows):
    """Field -> (offset in bytes, number of 64-bit words). The rows (field, offset, bytes) must cover `size` bytes."""
    cdef size_t end = 0
    for field, offset, length in rows:
        if offset != end or length % 8:
            raise AssertionError(f"{field} begins at {offset}, the field before it ends at {end}")
        end = offset + length
    if end != size:
        raise AssertionError(f"the fields are {end} bytes, the block is {size}")
    return {field: (offset, length // 8) for field, offset, length in rows}
