// The load generator: thousands of WebSocket clients in one thread. It reads commands from stdin, a line each, and answers each with a line
// of JSON:
//
//   open <protocol: ws | socketio> <clients> <slow ones among them> <groups> <placement: spread | together> <ports, by comma>
//        <path with a %u>
//   start    from here on it counts
//   mark     up to here: what came, and what this process needed for that
//   status   how many messages have come at all
//   report   whether all that has come was in order and once, and how old what came between start and mark was when it came
//   quit
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "client.h"
#include "process.h"

#define AT_ONCE 256 // handshakes
#define EVENTS 256
#define PORTS 32

static struct client *clients;
static size_t count, next_to_open, opening, failed;
static int epoll;
static int64_t open_since, start_cpu, longest_turn;

static void answer (void) {
  putchar('\n');
  fflush(stdout);
}

static void end_client (struct client *client) {
  if (client->state == JOINED) {
    totals.broken++;
    if (client->slow) totals.slow_broken++;
  } else {
    failed++;
    opening--;
  }
  if (client->fd >= 0) close(client->fd);
  client->fd = -1;
  client->state = CLOSED;
}

static void open_some (void) {
  while (next_to_open < count && opening < AT_ONCE) {
    struct client *client = &clients[next_to_open++];
    opening++;
    struct epoll_event event = { .events = EPOLLOUT, .data.ptr = client };
    if (client_connect(client) < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event) < 0) end_client(client);
  }
  if (open_since == 0 || next_to_open < count || opening > 0) return;
  printf("{\"failed\":%zu,\"ms\":%lld}", failed, (long long) ((now_us() - open_since) / 1000));
  open_since = 0;
  answer();
}

static void handle_event (const struct epoll_event *event) {
  struct client *client = event->data.ptr;
  enum state before = client->state;
  if (before == CLOSED) return;
  if (before == JOINED && client->slow) { // only its end is of interest
    end_client(client);
    return;
  }
  if (client_readable(client) < 0) {
    end_client(client);
  } else if (before == CONNECTING) {
    struct epoll_event readable = { .events = EPOLLIN, .data.ptr = client };
    epoll_ctl(epoll, EPOLL_CTL_MOD, client->fd, &readable);
  } else if (before != JOINED && client->state == JOINED) {
    opening--;
    struct epoll_event end = { .events = EPOLLRDHUP, .data.ptr = client };
    if (client->slow) epoll_ctl(epoll, EPOLL_CTL_MOD, client->fd, &end);
  }
  if (before != JOINED) open_some();
}

// Groups go round; the members of one are spread over the ports, or all on one of them.
static void open_clients (const char *arguments) {
  char protocol[16], placement[16], list[256];
  size_t wanted, slow, groups;
  unsigned ports[PORTS];
  size_t port_count = 0;
  if (sscanf(arguments, "%15s %zu %zu %zu %15s %255s %511s", protocol, &wanted, &slow, &groups, placement, list, path_template) != 7) {
    printf("{\"error\":\"open: wrong arguments\"}");
    answer();
    return;
  }
  for (char *port = strtok(list, ","); port != NULL && port_count < PORTS; port = strtok(NULL, ",")) {
    ports[port_count++] = (unsigned) atoi(port);
  }
  clients = calloc(wanted + 1, sizeof *clients);
  for (size_t i = 0; i < wanted; i++) {
    size_t place = strcmp(placement, "together") == 0 ? i % groups : i / groups + i % groups;
    clients[i] = (struct client) {
      .fd = -1, .state = WAITING, .socketio = strcmp(protocol, "socketio") == 0, .slow = i < slow,
      .port = (uint16_t) ports[place % port_count], .group = (uint32_t) (i % groups)
    };
  }
  count = wanted;
  open_since = now_us();
  open_some();
}

static void start (void) {
  window_start = now_us();
  window_end = 0;
  start_cpu = cpu_us();
  longest_turn = 0;
  totals.window_delivered = totals.window_bytes = totals.window_reads = 0;
  histogram_clear(&ages);
  printf("{}");
}

static void mark (void) {
  window_end = now_us();
  printf("{\"us\":%lld,\"cpuUs\":%lld,\"longestTurnUs\":%lld,\"delivered\":%llu,\"bytes\":%llu,\"reads\":%llu}",
    (long long) (window_end - window_start), (long long) (cpu_us() - start_cpu), (long long) longest_turn,
    (unsigned long long) totals.window_delivered, (unsigned long long) totals.window_bytes, (unsigned long long) totals.window_reads);
}

static void report (void) {
  printf("{\"delivered\":%llu,\"doubled\":%llu,\"outOfOrder\":%llu,\"misled\":%llu,\"broken\":%llu,\"slowBroken\":%llu,\"ages\":",
    (unsigned long long) totals.delivered, (unsigned long long) totals.doubled, (unsigned long long) totals.out_of_order,
    (unsigned long long) totals.misled, (unsigned long long) totals.broken, (unsigned long long) totals.slow_broken);
  histogram_print(&ages);
  printf("}");
}

static void handle_command (char *line) {
  if (strncmp(line, "open ", 5) == 0) {
    open_clients(line + 5);
    return; // is answered when all are there
  }
  if (strcmp(line, "start") == 0) start();
  else if (strcmp(line, "mark") == 0) mark();
  else if (strcmp(line, "report") == 0) report();
  else if (strcmp(line, "status") == 0) {
    printf("{\"delivered\":%llu,\"broken\":%llu}", (unsigned long long) totals.delivered, (unsigned long long) totals.broken);
  } else if (strcmp(line, "quit") == 0) exit(0);
  else printf("{\"error\":\"no such command\"}");
  answer();
}

static void read_commands (void) {
  static char input[4096];
  static size_t length;
  ssize_t got = read(STDIN_FILENO, input + length, sizeof input - length - 1);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) exit(0); // the bench is gone
  length += (size_t) got;
  char *end;
  while ((end = memchr(input, '\n', length)) != NULL) {
    *end = 0;
    handle_command(input);
    length -= (size_t) (end + 1 - input);
    memmove(input, end + 1, length);
  }
}

int main (void) {
  raise_file_limit();
  epoll = epoll_create1(EPOLL_CLOEXEC);
  fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
  struct epoll_event commands = { .events = EPOLLIN, .data.ptr = NULL };
  epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &commands);
  struct epoll_event events[EVENTS];
  for (;;) {
    int ready = epoll_wait(epoll, events, EVENTS, -1);
    int64_t woken = now_us();
    for (int i = 0; i < ready; i++) {
      if (events[i].data.ptr == NULL) read_commands();
      else handle_event(&events[i]);
    }
    int64_t turn = now_us() - woken;
    if (turn > longest_turn) longest_turn = turn;
  }
}
