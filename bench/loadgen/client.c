/* Clock, addresses, sockets, files: see client.h. */
#define _GNU_SOURCE
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>

void die(const char *what)
{
    perror(what);
    exit(2);
}

void give_up(const char *why)
{
    fprintf(stderr, "loadgen: %s\n", why);
    exit(2);
}

uint32_t parse_address(const char *text)
{
    struct in_addr address;
    if (inet_pton(AF_INET, text, &address) != 1)
        give_up("--source is an IPv4 address");
    return ntohl(address.s_addr);
}

uint32_t source_address(uint32_t first, unsigned n) { return first + n / 250 * 256 + n % 250; }

struct sockaddr_in server_address(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

void set_close_with_rst(int fd)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) < 0)
        die("SO_LINGER");
}

int client_socket(uint32_t source, struct shape shape)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        die("socket");
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(shape.port), .sin_addr.s_addr = htonl(source)};
    if ((shape.port && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) ||
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) < 0 ||
        (shape.receive_buffer && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &shape.receive_buffer, sizeof(int)) < 0) ||
        (shape.segment && setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &shape.segment, sizeof(int)) < 0) ||
        (shape.no_delay && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0) ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("client socket");
    if (shape.close_with_rst)
        set_close_with_rst(fd);
    return fd;
}

bool start_connect(int fd, uint16_t port)
{
    struct sockaddr_in server = server_address(port);
    return connect(fd, (struct sockaddr *)&server, sizeof server) == 0 || errno == EINPROGRESS;
}

char *read_file(const char *path, size_t *size)
{
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!file)
        die(path ? path : "--expect");
    char *bytes = malloc(MAX_MESSAGE);
    *size = bytes ? fread(bytes, 1, MAX_MESSAGE, file) : 0;
    fclose(file);
    if (!*size || *size == MAX_MESSAGE)
        give_up("a file must have 1 byte to 4 MB");
    return bytes;
}

unsigned long allow_many_files(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}
