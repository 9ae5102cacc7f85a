# Guarded: a callback of the event loop from which no exception comes.

from libc.stdint cimport uint64_t


cdef class Guarded:
    def __cinit__(self, callback not None, on_error not None):
        self._callback = callback
        self._on_error = on_error

    def call(self):
        try:
            self._callback()
            self.returned += 1
        except BaseException as error:
            try:
                self._on_error(error)
            except BaseException:
                # There is no memory to report it, say. `returned` tells that the callback failed.
                pass
