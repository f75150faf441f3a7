// The floor: what it costs to write() the same frame to each of N sockets, with nothing else around it. Not a server: it takes connections
// in a row, and reads nothing after the request. It reads commands from stdin, a line each, and answers each with a line of JSON:
//
//   listen <port>
//   publish <messages per second> <bytes> <0: text, 1: binary>
//   sent     how many messages it has sent
//   stop     the same, and sends no more
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "process.h"

#define LARGEST 65000

static int listener = -1;
static int *sockets;
static size_t count, capacity;
static double every_us; // 0: does not publish
static size_t bytes;
static int binary;
static int64_t started;
static uint64_t sent;

static void listen_on (unsigned port) {
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t) port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  int on = 1;
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *) &address, sizeof address) < 0 || listen(listener, 1024) < 0) {
    printf("{\"error\":\"cannot listen\"}\n");
  } else printf("{}\n");
}

static void accept_one (void) {
  static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x06joined";
  char request[4096];
  int on = 1, fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (fd < 0) return;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  // The load generator sends its request as one piece.
  if (read(fd, request, sizeof request) <= 0 || write(fd, answer, sizeof answer - 1) < 0) {
    close(fd);
    return;
  }
  fcntl(fd, F_SETFL, O_NONBLOCK);
  if (count == capacity) sockets = realloc(sockets, (capacity = capacity == 0 ? 1024 : capacity * 2) * sizeof *sockets);
  sockets[count++] = fd;
}

// A message carries the time when it is due, so that being late shows. A socket that is full does not get it, which the load generator
// counts.
static void write_all (int64_t due) {
  static unsigned char frame[LARGEST + 4];
  size_t header = bytes < 126 ? 2 : 4;
  frame[0] = binary ? 0x82 : 0x81;
  frame[1] = (unsigned char) (bytes < 126 ? bytes : 126);
  if (header == 4) {
    frame[2] = (unsigned char) (bytes >> 8);
    frame[3] = (unsigned char) bytes;
  }
  memset(frame + header, 'x', bytes);
  int length = snprintf((char *) frame + header, bytes, "0 %llu %lld", (unsigned long long) ++sent, (long long) due);
  frame[header + (size_t) length] = ' ';
  for (size_t i = 0; i < count; i++) {
    ssize_t written = write(sockets[i], frame, header + bytes);
    if (written >= 0 && (size_t) written < header + bytes) { // the rest has to follow, or the stream is broken
      struct pollfd writable = { .fd = sockets[i], .events = POLLOUT };
      for (size_t at = (size_t) written; at < header + bytes && poll(&writable, 1, 1000) == 1;) {
        written = write(sockets[i], frame + at, header + bytes - at);
        if (written < 0) break;
        at += (size_t) written;
      }
    }
  }
}

static void read_command (void) {
  char line[256];
  double rate;
  unsigned port;
  if (fgets(line, sizeof line, stdin) == NULL) exit(0); // the bench is gone
  if (sscanf(line, "listen %u", &port) == 1) {
    listen_on(port);
  } else if (sscanf(line, "publish %lf %zu %d", &rate, &bytes, &binary) == 3 && bytes >= 40 && bytes <= LARGEST) {
    every_us = 1e6 / rate;
    started = now_us();
    printf("{}\n");
  } else {
    if (strncmp(line, "stop", 4) == 0) every_us = 0;
    printf("{\"sent\":%llu}\n", (unsigned long long) sent);
  }
  fflush(stdout);
}

int main (void) {
  raise_file_limit();
  signal(SIGPIPE, SIG_IGN);
  setvbuf(stdin, NULL, _IONBF, 0); // so that poll() sees what is there
  for (;;) {
    struct timespec wait = { .tv_sec = 3600 };
    int64_t due = 0;
    if (every_us > 0) {
      due = started + (int64_t) ((double) sent * every_us);
      int64_t left = due - now_us();
      if (left < 0) left = 0;
      wait = (struct timespec) { .tv_sec = left / 1000000, .tv_nsec = left % 1000000 * 1000 };
    }
    struct pollfd inputs[] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .fd = listener, .events = POLLIN } };
    ppoll(inputs, 2, &wait, NULL);
    if (inputs[0].revents != 0) read_command();
    else if (inputs[1].revents != 0) accept_one();
    else if (every_us > 0 && now_us() >= due) write_all(due);
  }
}
