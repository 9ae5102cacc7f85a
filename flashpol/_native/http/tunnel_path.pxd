# The paths of RTMPT: what a POST asks of a tunnel session.
#
#   /fcs/ident, /fcs/ident2     which server it is; old clients ask
#   /open/1                     begin a session; any number, or none
#   /send/ID/NUMBER             bytes for the upstream
#   /idle/ID/NUMBER             a poll
#   /close/ID/NUMBER            end the session; some clients send no number

from libc.stdint cimport int64_t, uint8_t

cdef enum TunnelKind:
    TK_NONE = 0                 # another path
    TK_IDENT
    TK_OPEN
    TK_SEND
    TK_IDLE
    TK_CLOSE

cdef enum:
    NO_NUMBER = -1
    BAD_NUMBER = -2             # not 1 to 18 digits
    ID_BYTES = 16               # of our ids; what is longer or shorter is none

cdef struct TunnelPath:
    uint8_t kind                # a TunnelKind
    uint8_t id_size             # ID_BYTES, or 0: it cannot be an id of ours
    char id[ID_BYTES]
    int64_t number              # 0 or more, NO_NUMBER or BAD_NUMBER
