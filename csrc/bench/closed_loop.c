/* A second closed loop of echo requests, which `bench verify` sets the harness's own load against.
 *
 * A program of its own that shares no code with np_loadgen.c, so that a mistake in the one is not
 * in the other: each has its own way of waiting, of counting and of comparing. It is no part of any
 * extension; netpoll/bench/otherloads.py compiles it when it is asked for.
 *
 *   closed_loop ADDRESS PORT CONNECTIONS SIZE_BYTES
 *
 * For each line of standard input, a number of milliseconds, there is a window of that length, and
 * then a line of output: the answers within the window, its nanoseconds, and all answers, those
 * after its end included. Between windows nothing is on its way. */
#define _GNU_SOURCE 1
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#define EVENTS_COUNT 256
#define PATIENCE_MS 5000
#define PIECE_BYTES 65536

/* `letter`: what the message consists of, which is another one in each request. */
struct client {
    int fd;
    bool waits;
    unsigned char letter;
    size_t to_send;
    size_t to_receive;
};

/* `within`, `all`: answers of this window. */
struct load {
    int epoll_fd;
    size_t size_bytes;
    size_t clients_count;
    struct client *clients;
    size_t waiting_count;
    uint64_t end_ns;
    uint64_t within;
    uint64_t all;
    unsigned char piece[PIECE_BYTES];
};

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static _Noreturn void fail_with_errno(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void send_rest(struct load *load, struct client *client)
{
    while (client->to_send) {
        size_t length = smaller(client->to_send, PIECE_BYTES);
        memset(load->piece, client->letter, length);
        ssize_t sent = send(client->fd, load->piece, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent < 0)
            fail_with_errno("cannot send");
        client->to_send -= (size_t)sent;
    }
}

static void begin(struct load *load, struct client *client)
{
    client->letter++;
    client->to_send = client->to_receive = load->size_bytes;
    client->waits = true;
    load->waiting_count++;
    send_rest(load, client);
}

/* Whether the answer is complete now. */
static bool receive_some(struct load *load, struct client *client)
{
    while (client->to_receive) {
        size_t most = smaller(client->to_receive, PIECE_BYTES);
        ssize_t got = recv(client->fd, load->piece, most, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN)
            return false;
        if (got < 0)
            fail_with_errno("cannot receive");
        if (got == 0)
            fail("the server closed a connection");
        for (ssize_t i = 0; i < got; i++)
            if (load->piece[i] != client->letter)
                fail("an answer is not what was sent");
        client->to_receive -= (size_t)got;
    }
    if (client->to_send)
        fail("an answer came before its question");
    return true;
}

static void on_ready(struct load *load, const struct epoll_event *event)
{
    struct client *client = event->data.ptr;
    if (!client->waits) { /* room to send again, after a long message, is no news */
        if (event->events & ~(uint32_t)EPOLLOUT)
            fail("a server speaks without being asked, or has closed a connection");
        return;
    }
    send_rest(load, client);
    if (!receive_some(load, client))
        return;
    client->waits = false;
    load->waiting_count--;
    load->all++;
    if (now_ns() < load->end_ns) {
        load->within++;
        begin(load, client);
    }
}

static void run_window(struct load *load, uint64_t length_ns)
{
    struct epoll_event events[EVENTS_COUNT];
    load->within = load->all = 0;
    load->end_ns = now_ns() + length_ns;
    for (size_t i = 0; i < load->clients_count; i++)
        begin(load, &load->clients[i]);
    while (load->waiting_count) {
        int ready = epoll_wait(load->epoll_fd, events, EVENTS_COUNT, PATIENCE_MS);
        if (ready < 0 && errno != EINTR)
            fail_with_errno("cannot wait");
        if (ready == 0)
            fail("the server stopped answering");
        for (int i = 0; i < ready; i++)
            on_ready(load, &events[i]);
    }
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", load->within, length_ns, load->all);
    fflush(stdout);
}

/* As netpoll.bench.tcp has it: not waiting for more to send, and not paced. */
static void tune(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", sizeof("cubic") - 1);
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)))
        fail_with_errno("cannot set TCP_NODELAY");
}

static void open_client(struct load *load, struct client *client, const struct sockaddr_in *address)
{
    /* Level-triggered readiness to write would never end, so only changes are told. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        fail_with_errno("cannot make a socket");
    tune(client->fd);
    if (connect(client->fd, (const struct sockaddr *)address, sizeof(*address)))
        fail_with_errno("cannot connect");
    if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, client->fd, &event))
        fail_with_errno("cannot watch a socket");
}

static void connect_all(struct load *load, const struct sockaddr_in *address)
{
    load->clients = calloc(load->clients_count, sizeof(*load->clients));
    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!load->clients || load->epoll_fd < 0)
        fail_with_errno("cannot begin");
    for (size_t i = 0; i < load->clients_count; i++)
        open_client(load, &load->clients[i], address);
}

int main(int argc, char **argv)
{
    static const char usage[] = "closed_loop ADDRESS PORT CONNECTIONS SIZE_BYTES";
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct load *load = calloc(1, sizeof(*load));
    char line[32];
    if (argc != 5)
        fail(usage);
    if (!load)
        fail_with_errno("cannot begin");
    address.sin_port = htons((uint16_t)strtoul(argv[2], NULL, 10));
    load->clients_count = strtoul(argv[3], NULL, 10);
    load->size_bytes = strtoul(argv[4], NULL, 10);
    if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1)
        fail(usage);
    connect_all(load, &address);
    while (fgets(line, sizeof(line), stdin))
        run_window(load, strtoull(line, NULL, 10) * 1000000u);
    return 0;
}
