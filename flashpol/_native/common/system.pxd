# What the kernel and the C library offer, as far as Cython does not declare it.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from posix.time cimport itimerspec

cdef extern from "<netinet/in.h>" nogil:
    int IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IP_BIND_ADDRESS_NO_PORT, IP_TRANSPARENT, IPV6_TRANSPARENT
    uint16_t ntohs(uint16_t number)
    uint16_t htons(uint16_t number)
    struct in_addr:
        pass
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        uint16_t sin6_port
        in6_addr sin6_addr
        uint32_t sin6_scope_id

cdef extern from "<endian.h>" nogil:
    uint32_t be32toh(uint32_t number)
    uint64_t be64toh(uint64_t number)
    uint32_t htobe32(uint32_t number)
    uint64_t htobe64(uint64_t number)

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        uint16_t sa_family
    struct sockaddr_storage:
        uint16_t ss_family
    struct linger:
        int l_onoff
        int l_linger
    int socket(int domain, int type, int protocol)
    int bind(int fd, const sockaddr* address, socklen_t size)
    int connect(int fd, const sockaddr* address, socklen_t size)
    int accept4(int fd, void* address, socklen_t* size, int flags)
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    int shutdown(int fd, int how)
    int getpeername(int fd, void* address, socklen_t* size)
    int getsockname(int fd, void* address, socklen_t* size)
    int getsockopt(int fd, int level, int name, void* value, socklen_t* size)
    int setsockopt(int fd, int level, int name, const void* value, socklen_t size)
    int SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL, MSG_MORE, MSG_PEEK, SHUT_WR
    int SOL_SOCKET, SO_ERROR, SO_KEEPALIVE, SO_LINGER, SO_REUSEADDR
    int AF_UNIX

cdef extern from "<netinet/tcp.h>" nogil:
    struct tcp_info:
        uint8_t tcpi_state
        uint8_t tcpi_options
        uint32_t tcpi_unacked
        uint32_t tcpi_sacked
    int TCP_CLOSE
    int TCP_INFO, TCPI_OPT_TIMESTAMPS, TCP_KEEPIDLE, TCP_NODELAY, TCP_QUICKACK, TCP_USER_TIMEOUT

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET, AF_INET6, INET6_ADDRSTRLEN
    const char* inet_ntop(int family, const void* address, char* text, socklen_t size)
    int inet_pton(int family, const char* text, void* address)

cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        uint16_t sun_family
        char sun_path[108]

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<linux/sockios.h>" nogil:
    int SIOCOUTQ

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int size, int timeout)
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd* fds, unsigned long count, int timeout)
    int POLLIN

cdef extern from "<sys/timerfd.h>" nogil:
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, itimerspec* new, itimerspec* old)
    int TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME

# Linux has it since 5.9, glibc since 2.34.
cdef extern from *:
    """
    #include <sys/syscall.h>
    #include <unistd.h>
    #ifndef SYS_close_range
    #define SYS_close_range 436
    #endif
    __attribute__((unused)) static inline int flashpol_close_range(int first, int last) {
        return (int)syscall(SYS_close_range, (unsigned)first, (unsigned)last, 0u);
    }
    """
    int close_range "flashpol_close_range"(int first, int last) noexcept nogil

cdef extern from *:
    """
    #include <errno.h>
    static inline void flashpol_set_errno(int number) { errno = number; }
    """
    void set_errno "flashpol_set_errno"(int number) noexcept nogil
