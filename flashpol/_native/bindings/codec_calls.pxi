# Calls of a codec for Python, of those that tests make alone: the fast path and the pump call codecs in C.

from libc.stdint cimport uint32_t

from flashpol._native.codecs.codec cimport (
    Codec, CODEC_END, CODEC_ERROR, CODEC_OK, CODEC_PLAIN, CODEC_READ, CODEC_REPLY, CODEC_WORK, CodecResult, Output,
)

cdef dict CODEC_RESULTS = {CODEC_OK: "ok", CODEC_WORK: "work", CODEC_END: "end", CODEC_ERROR: "error"}


cdef tuple call_codec(Codec* codec, bytes wire):
    """decode, or without input work: the result, plain bytes, and what the codec sends by itself."""
    cdef Output plain, reply
    cdef CodecResult result
    cdef bytes room = bytes(CODEC_PLAIN + CODEC_REPLY)
    if wire is not None and len(wire) > CODEC_READ:
        raise ValueError(f"at most {CODEC_READ} bytes at a time")
    plain.data, plain.size, plain.room = <char*><const char*>room, 0, CODEC_PLAIN
    reply.data, reply.size, reply.room = plain.data + CODEC_PLAIN, 0, CODEC_REPLY
    if wire is None:
        result = codec.type.work(codec, &plain, &reply)
    else:
        result = codec.type.decode(codec, <const char*>wire, <uint32_t>len(wire), &plain, &reply)
    return CODEC_RESULTS[<int>result], plain.data[:plain.size], reply.data[:reply.size]
