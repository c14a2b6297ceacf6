/* The floor under every HTTP server on this machine: an echo on epoll that reads no more of a request than where it ends.
 *
 *   echo PORT
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOM 1048576

struct connection {
    int socket;
    size_t received;
    char buffer[ROOM];
};

static size_t content_length(const char *head, const char *end) {
    for (const char *line = head; line < end; line++)
        if (*line == '\n' && !strncasecmp(line + 1, "content-length:", 15)) return strtoul(line + 16, NULL, 10);
    return 0;
}

static void answer(struct connection *c) {
    static char out[ROOM + 256];
    char *end = strstr(c->buffer, "\r\n\r\n");
    if (!end) return;
    size_t body = content_length(c->buffer, end), whole = (size_t)(end - c->buffer) + 4 + body;
    if (c->received < whole) return;
    int head = snprintf(out, 256, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n", body);
    memcpy(out + head, end + 4, body);
    c->received = 0;
    if (send(c->socket, out, (size_t)head + body, MSG_NOSIGNAL) < 0) perror("send");
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(arguments[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1, poll_fd = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) { perror("listen"); return 1; }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int found = epoll_wait(poll_fd, events, 256, -1);
        for (int i = 0; i < found; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) {
                c = calloc(1, sizeof *c);
                c->socket = accept(listener, NULL, NULL);
                setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                struct epoll_event mine = {.events = EPOLLIN, .data.ptr = c};
                epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->socket, &mine);
                continue;
            }
            ssize_t n = recv(c->socket, c->buffer + c->received, ROOM - c->received - 1, 0);
            if (n <= 0) { close(c->socket); free(c); continue; }
            c->received += (size_t)n;
            c->buffer[c->received] = 0;
            answer(c);
        }
    }
}
