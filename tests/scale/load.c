/* load.c - the clients of tests.scale: very many connections of one process, few of them busy.
 *
 * Use       load PORT, then a line for each command, answered by a line of JSON:
 *               open COUNT           connects until there are COUNT; each sends a message and has
 *                                    it back before it counts, AT_ONCE at a time
 *               run BUSY SECONDS     BUSY connections, spread over all, ask one thing after another
 *               cycle BUSY SECONDS   connect, ask, reset, again and again, beside those that stay
 *               close                resets all
 *           {"count": what was done, "seconds": ..., "p50_us": ..., "p99_us": ...}, or
 *           {"fault": why} and the end of the program.
 * Sources   A source address has some ten thousand ports, so connection i comes from
 *           127.1.0.(1 + i / PER_SOURCE).
 * Honesty   What comes back is compared; a CLOSED connection or other bytes are a fault.
 * Memory    32 bytes a connection, and the kernel's.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MESSAGE_BYTES = 64,
    AT_ONCE = 512,
    PER_SOURCE = 30000,
    EVENTS_COUNT = 256,
    PATIENCE_MS = 20000,
    LATENCY_MAX_US = 200000,
    LINE_BYTES = 128,
};

enum state { IDLE, CONNECTING, ASKING };

struct client {
    int64_t start_ns;
    int fd;
    uint32_t received_bytes;
    uint8_t state;
};

enum work { OPENING, RUNNING, CYCLING };

static struct {
    struct sockaddr_in server;
    struct client *clients;
    uint32_t count, cap; /* of which connected: count */
    uint32_t in_flight;
    int epoll_fd;
    enum work work;
    uint32_t wanted; /* OPENING: how many shall be begun in all */
    int64_t deadline_ns;
    uint64_t done;
    uint32_t latencies[LATENCY_MAX_US + 1];
    uint8_t message[MESSAGE_BYTES];
} load;

static _Noreturn void fail(const char *what)
{
    printf("{\"fault\": \"%s: %s\"}\n", what, strerror(errno));
    exit(1);
}

static int64_t clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* ---- one connection ------------------------------------------------------------------------- */

static void ask(struct client *client)
{
    client->state = ASKING;
    client->received_bytes = 0;
    ssize_t n = send(client->fd, load.message, MESSAGE_BYTES, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n != MESSAGE_BYTES) /* a message always fits what an idle connection may send */
        fail("a message cannot be sent");
}

static void begin(uint32_t index)
{
    struct client *client = &load.clients[index];
    struct sockaddr_in source = {.sin_family = AF_INET};
    struct linger reset = {.l_onoff = 1};
    int one = 1;
    source.sin_addr.s_addr = htonl(0x7f010001 + index / PER_SOURCE);
    *client = (struct client){.start_ns = clock_ns(), .state = CONNECTING};
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (client->fd < 0)
        fail("no socket");
    if (setsockopt(client->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)) < 0 ||
        setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0 ||
        setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0 ||
        bind(client->fd, (struct sockaddr *)&source, sizeof(source)) < 0)
        fail("a socket cannot be set up");
    if (connect(client->fd, (struct sockaddr *)&load.server, sizeof(load.server)) < 0 &&
        errno != EINPROGRESS)
        fail("cannot connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = index};
    if (epoll_ctl(load.epoll_fd, EPOLL_CTL_ADD, client->fd, &event) < 0)
        fail("cannot wait for a socket");
    load.in_flight++;
}

static void connected(struct client *client)
{
    int err = 0;
    socklen_t bytes = sizeof(err);
    if (getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &err, &bytes) < 0 || err) {
        errno = err;
        fail("a connection was not made");
    }
    ask(client);
}

static void note_latency(int64_t nanoseconds)
{
    int64_t us = nanoseconds / 1000;
    load.latencies[us < LATENCY_MAX_US ? us : LATENCY_MAX_US]++;
}

/* The answer is there in full: what this connection does next. */
static void answered(struct client *client)
{
    int64_t now_ns = clock_ns();
    uint32_t index = (uint32_t)(client - load.clients);
    note_latency(now_ns - client->start_ns);
    client->state = IDLE;
    load.in_flight--;
    load.done++;
    switch (load.work) {
    case OPENING:
        if (load.count < load.wanted)
            begin(load.count++);
        return;
    case RUNNING:
        if (now_ns < load.deadline_ns) {
            client->start_ns = now_ns;
            load.in_flight++;
            ask(client);
        }
        return;
    case CYCLING:
        close(client->fd);
        client->fd = -1;
        if (now_ns < load.deadline_ns)
            begin(index);
    }
}

static void receive(struct client *client)
{
    uint8_t bytes[MESSAGE_BYTES + 1];
    while (client->state == ASKING) {
        ssize_t n = recv(client->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            fail(n ? "a connection broke" : "the server closed a connection");
        if (client->received_bytes + (size_t)n > MESSAGE_BYTES ||
            memcmp(bytes, load.message + client->received_bytes, (size_t)n) != 0)
            fail("the server answered other bytes than it was sent");
        client->received_bytes += (uint32_t)n;
        if (client->received_bytes == MESSAGE_BYTES) {
            answered(client);
            return;
        }
    }
}

/* ---- commands ------------------------------------------------------------------------------- */

static void handle_until_quiet(void)
{
    struct epoll_event events[EVENTS_COUNT];
    while (load.in_flight) {
        int count = epoll_wait(load.epoll_fd, events, EVENTS_COUNT, PATIENCE_MS);
        if (count == 0) {
            errno = ETIMEDOUT;
            fail("the server says nothing");
        }
        for (int i = 0; i < count; i++) {
            struct client *client = &load.clients[events[i].data.u32];
            if (client->fd < 0)
                continue; /* closed earlier in this round */
            if (client->state == CONNECTING)
                connected(client);
            else if (client->state == IDLE && (events[i].events & (EPOLLHUP | EPOLLERR)))
                fail("the server closed an idle connection");
            receive(client);
        }
    }
}

static void grow(uint32_t cap)
{
    if (cap <= load.cap)
        return;
    load.clients = realloc(load.clients, cap * sizeof(*load.clients));
    if (!load.clients)
        fail("no memory");
    load.cap = cap;
}

static void open_until(uint32_t count)
{
    grow(count);
    load.work = OPENING;
    load.wanted = count;
    for (int i = 0; i < AT_ONCE && load.count < count; i++)
        begin(load.count++);
    handle_until_quiet();
}

static void run(uint32_t busy, int64_t duration_ns)
{
    uint32_t stride = load.count / busy;
    load.work = RUNNING;
    load.deadline_ns = clock_ns() + duration_ns;
    for (uint32_t i = 0; i < busy; i++) {
        struct client *client = &load.clients[i * stride];
        client->start_ns = clock_ns();
        load.in_flight++;
        ask(client);
    }
    handle_until_quiet();
}

static void cycle(uint32_t busy, int64_t duration_ns)
{
    grow(load.count + busy);
    load.work = CYCLING;
    load.deadline_ns = clock_ns() + duration_ns;
    for (uint32_t i = 0; i < busy; i++)
        begin(load.count + i);
    handle_until_quiet();
}

static void close_all(void)
{
    load.done = load.count;
    while (load.count)
        close(load.clients[--load.count].fd);
}

static int percentile_us(double part)
{
    uint64_t count = 0, seen = 0;
    for (int i = 0; i <= LATENCY_MAX_US; i++)
        count += load.latencies[i];
    for (int i = 0; i <= LATENCY_MAX_US; i++) {
        seen += load.latencies[i];
        if (seen && (double)seen >= part * (double)count)
            return i;
    }
    return 0;
}

int main(int argc, char **argv)
{
    char line[LINE_BYTES], word[LINE_BYTES];
    load.server = (struct sockaddr_in){.sin_family = AF_INET};
    load.server.sin_port = htons((uint16_t)(argc > 1 ? atoi(argv[1]) : 0));
    load.server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < MESSAGE_BYTES; i++)
        load.message[i] = (uint8_t)(i * 7 + 1);
    while (fgets(line, sizeof(line), stdin)) {
        unsigned number = 0;
        double seconds = 0;
        int64_t start_ns = clock_ns();
        load.done = 0;
        memset(load.latencies, 0, sizeof(load.latencies));
        if (sscanf(line, "%s %u %lf", word, &number, &seconds) < 1)
            continue;
        if (strcmp(word, "open") == 0 && number)
            open_until(number);
        else if (strcmp(word, "run") == 0 && number && number <= load.count)
            run(number, (int64_t)(seconds * 1e9));
        else if (strcmp(word, "cycle") == 0 && number)
            cycle(number, (int64_t)(seconds * 1e9));
        else if (strcmp(word, "close") == 0)
            close_all();
        else
            fail("no such command");
        printf("{\"count\": %llu, \"seconds\": %.6f, \"p50_us\": %d, \"p99_us\": %d}\n",
               (unsigned long long)load.done, (double)(clock_ns() - start_ns) / 1e9,
               percentile_us(0.5), percentile_us(0.99));
        fflush(stdout);
    }
    return 0;
}
