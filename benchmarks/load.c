/* A load generator: keep-alive HTTP/1.1 on epoll, one request in flight per connection.
 *
 *   load PORT TEMPLATE CONNECTIONS SECONDS RATE FIRST
 *
 * TEMPLATE is a file with one whole request; every run of twelve @ in it becomes a number of its own, from FIRST on.
 * With RATE 0 each connection asks again as soon as it is answered; else requests are due at RATE a second, and their
 * latency counts from when they were due, not from when a connection was free; that of a refusal from when it was sent. Prints one JSON object: counts by status,
 * and in microseconds the quantiles of the latency of what was answered with 2xx and of what was refused with 503.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MARK "@@@@@@@@@@@@"
#define WIDTH 12
#define MAX_MARKS 2048
#define BUFFER 1048576

struct connection {
    int socket;
    int waiting;
    double due, asked;
    size_t sent, received, expected;
    char *request, *buffer;
};

static char *template_text;
static size_t template_size, marks[MAX_MARKS], n_marks, room = 65536;
static unsigned long long number;
static double *accepted, *refused;
static size_t n_accepted, n_refused, n_other, n_broken, n_most;
static int port, poll_fd;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void read_template(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    template_text = malloc(16 * BUFFER);
    template_size = fread(template_text, 1, 16 * BUFFER - 1, file);
    fclose(file);
    template_text[template_size] = 0;
    for (char *at = template_text; (at = strstr(at, MARK)) && n_marks < MAX_MARKS; at += WIDTH) marks[n_marks++] = (size_t)(at - template_text);
}

static void connect_to(struct connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    c->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (c->socket < 0) fail("socket");
    if (connect(c->socket, (struct sockaddr *)&address, sizeof address)) fail("connect");
    setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->socket, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->socket, &event)) fail("epoll_ctl");
    c->waiting = 0;
}

static void send_rest(struct connection *c) {
    while (c->sent < template_size) {
        ssize_t n = send(c->socket, c->request + c->sent, template_size - c->sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) {
                struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
                epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->socket, &event);
            }
            return;
        }
        c->sent += (size_t)n;
    }
}

static void ask(struct connection *c, double due) {
    char digits[WIDTH + 1];
    for (size_t i = 0; i < n_marks; i++) {
        snprintf(digits, sizeof digits, "%012llu", number++ % 1000000000000ULL);
        memcpy(c->request + marks[i], digits, WIDTH);
    }
    c->sent = c->received = c->expected = 0;
    c->due = due;
    c->asked = now();
    c->waiting = 1;
    send_rest(c);
}

static size_t content_length(const char *head, const char *end) {
    for (const char *line = head; line < end; line++)
        if (*line == '\n' && !strncasecmp(line + 1, "content-length:", 15)) return strtoul(line + 16, NULL, 10);
    return 0;
}

static void note(struct connection *c, double at) {
    int status = atoi(c->buffer + 9);
    double us = (at - c->due) * 1e6;
    if (status / 100 == 2 && n_accepted < n_most) accepted[n_accepted++] = us;
    else if (status == 503 && n_refused < n_most) refused[n_refused++] = (at - c->asked) * 1e6;
    else n_other++;
    c->waiting = 0;
}

/* Read what has come; return 1 once the answer is whole, -1 where the connection ended. */
static int receive(struct connection *c) {
    ssize_t n = recv(c->socket, c->buffer + c->received, room - c->received - 1, 0);
    if (n <= 0) return n < 0 && errno == EAGAIN ? 0 : -1;
    c->received += (size_t)n;
    c->buffer[c->received] = 0;
    if (!c->expected) {
        char *end = strstr(c->buffer, "\r\n\r\n");
        if (!end) return 0;
        c->expected = (size_t)(end - c->buffer) + 4 + content_length(c->buffer, end);
        if (c->expected >= room) { fprintf(stderr, "an answer of %zu bytes\n", c->expected); exit(1); }
    }
    return c->received >= c->expected;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *sorted, size_t n, double q) { return n ? sorted[(size_t)(q * (double)(n - 1) + 0.5)] : 0.0; }

int main(int count, char **arguments) {
    if (count != 7) { fprintf(stderr, "load PORT TEMPLATE CONNECTIONS SECONDS RATE FIRST\n"); return 2; }
    port = atoi(arguments[1]);
    read_template(arguments[2]);
    int n = atoi(arguments[3]);
    double seconds = atof(arguments[4]), rate = atof(arguments[5]);
    number = strtoull(arguments[6], NULL, 10);
    if (n_marks > 1) room = BUFFER;
    n_most = 20000000;
    accepted = malloc(n_most * sizeof *accepted);
    refused = malloc(n_most * sizeof *refused);
    poll_fd = epoll_create1(0);
    struct connection *all = calloc((size_t)n, sizeof *all), **free_ones = calloc((size_t)n, sizeof *free_ones);
    int n_free = 0;
    for (int i = 0; i < n; i++) {
        all[i].request = malloc(template_size + 1);
        memcpy(all[i].request, template_text, template_size + 1);
        all[i].buffer = malloc(room);
        connect_to(&all[i]);
    }
    double begin = now(), end = begin + seconds, next = begin;
    for (int i = 0; i < n; i++) {
        if (rate > 0) free_ones[n_free++] = &all[i];
        else ask(&all[i], now());
    }
    struct epoll_event events[512];
    double at = begin;
    while ((at = now()) < end) {
        while (rate > 0 && n_free && next <= at) { ask(free_ones[--n_free], next); next += 1.0 / rate; }
        int wait = rate > 0 && n_free ? (next - at > 2e-3 ? 1 : 0) : 10;
        int found = epoll_wait(poll_fd, events, 512, wait);
        for (int i = 0; i < found; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) {
                struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
                epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->socket, &event);
                send_rest(c);
            }
            if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
            int whole = receive(c);
            if (whole < 0) { n_broken += c->waiting != 0; close(c->socket); connect_to(c); whole = 1; }
            else if (whole) note(c, now());
            if (!whole) continue;
            if (rate > 0) free_ones[n_free++] = c;
            else ask(c, now());
        }
    }
    double took = at - begin;
    size_t behind = rate > 0 ? (size_t)((at - next) * rate > 0 ? (at - next) * rate : 0) : 0;
    qsort(accepted, n_accepted, sizeof *accepted, ascending);
    qsort(refused, n_refused, sizeof *refused, ascending);
    printf("{\"n\": %zu, \"refused\": %zu, \"other\": %zu, \"broken\": %zu, \"behind\": %zu, \"seconds\": %.4f, \"rps\": %.1f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"refusal_p50_us\": %.1f, \"refusal_p99_us\": %.1f, \"next\": %llu}\n",
           n_accepted, n_refused, n_other, n_broken, behind, took, (double)n_accepted / took, quantile(accepted, n_accepted, 0.5),
           quantile(accepted, n_accepted, 0.99), quantile(accepted, n_accepted, 0.999), quantile(refused, n_refused, 0.5),
           quantile(refused, n_refused, 0.99), number);
    return 0;
}
