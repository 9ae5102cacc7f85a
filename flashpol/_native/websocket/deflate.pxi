# Compressing a message as a whole, and decompressing one in pieces, as far as there is room.

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free, malloc

from flashpol._native.codecs.codec cimport CODEC_HEADROOM, Output
from flashpol._native.websocket.deflate cimport (
    CLIENT_WINDOW, Compressor, COMPRESSOR_LEVEL, COMPRESSOR_MEMORY, deflate, deflateEnd, deflateInit2, deflateReset,
    inflate, inflateEnd, inflateInit2, inflateReset, SERVER_WINDOW, z_stream, Z_BUF_ERROR, Z_DEFAULT_STRATEGY,
    Z_DEFLATED, Z_OK,
    Z_STREAM_END, Z_SYNC_FLUSH,
)

cdef Compressor* make_compressor() noexcept nogil:
    """NULL: there is no memory, or no zlib."""
    cdef Compressor* made = <Compressor*>calloc(1, sizeof(Compressor))
    if made != NULL and deflateInit2(
            &made.stream, COMPRESSOR_LEVEL, Z_DEFLATED, -SERVER_WINDOW, COMPRESSOR_MEMORY, Z_DEFAULT_STRATEGY) != Z_OK:
        free(made)
        return NULL
    return made


cdef void free_compressor(Compressor* compressor) noexcept nogil:
    if compressor != NULL:
        deflateEnd(&compressor.stream)
        free(compressor)


cdef uint32_t compress_message(Compressor* compressor, const char* data, uint32_t size, char** out) noexcept nogil:
    """The size of a message when it is compressed, with CODEC_HEADROOM bytes in front of it; 0: that would not be less.
    """
    cdef z_stream* stream = &compressor.stream
    cdef char* room = compressor.room + CODEC_HEADROOM
    cdef uint32_t made
    deflateReset(stream)
    stream.next_in, stream.avail_in = <unsigned char*>data, size
    stream.next_out, stream.avail_out = <unsigned char*>room, size
    if deflate(stream, Z_SYNC_FLUSH) != Z_OK or stream.avail_in or stream.avail_out == 0:
        return 0
    made = size - stream.avail_out
    if made <= 4:
        return 0
    out[0] = room
    return made - 4                                     # 00 00 FF FF, section 7.2.1


cdef z_stream* make_decompressor() noexcept nogil:
    """NULL: there is no memory, or no zlib."""
    cdef z_stream* made = <z_stream*>calloc(1, sizeof(z_stream))
    if made != NULL and inflateInit2(made, -CLIENT_WINDOW) != Z_OK:
        free(made)
        return NULL
    return made


cdef void free_decompressor(z_stream* stream) noexcept nogil:
    if stream != NULL:
        inflateEnd(stream)
        free(stream)


cdef bint decompress(z_stream* stream, const char* data, uint32_t size, uint32_t* used, Output* plain) noexcept nogil:
    """Decompress until the input ends or `plain` is full. False: it is not the format.

    A sender may end a block as the last one, and go on with another (section 7.2.3.4).
    """
    cdef int result
    stream.next_in, stream.avail_in = <unsigned char*>data, size
    stream.next_out, stream.avail_out = <unsigned char*>plain.data + plain.size, plain.room - plain.size
    while stream.avail_out:
        result = inflate(stream, Z_SYNC_FLUSH)
        if result == Z_STREAM_END and inflateReset(stream) == Z_OK:
            if stream.avail_in == 0:
                break
        elif result == Z_BUF_ERROR:                     # there is no more input
            break
        elif result != Z_OK:
            return False
    used[0] = size - stream.avail_in
    plain.size = plain.room - stream.avail_out
    return True
