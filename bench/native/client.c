#define _GNU_SOURCE
#include "client.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "process.h"

#define READ_SIZE (256 * 1024)
#define LARGEST_FRAME (1024 * 1024)

struct totals totals;
struct histogram ages;
int64_t window_start;
int64_t window_end;
char path_template[512];

static unsigned char buffer[LARGEST_FRAME + READ_SIZE];

int client_connect (struct client *client) {
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(client->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (client->fd < 0) return -1;
  int on = 1;
  setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (client->slow) {
    int small = 4096; // so that the server feels soon that nobody reads
    setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  }
  client->state = CONNECTING;
  return connect(client->fd, (struct sockaddr *) &address, sizeof address) == 0 || errno == EINPROGRESS ? 0 : -1;
}

static int request_upgrade (struct client *client) {
  char path[640], request[1024];
  snprintf(path, sizeof path, path_template, client->group);
  int length = snprintf(request, sizeof request,
    "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YmVuY2htYXJrLWNsaWVudA==\r\n\r\n", path, client->port);
  client->state = UPGRADING;
  return write(client->fd, request, (size_t) length) == length ? 0 : -1;
}

// Masked with zeros: valid, and the payload stays as it is. `length` is at most 125.
static int send_frame (struct client *client, int opcode, const unsigned char *payload, size_t length) {
  unsigned char frame[131] = { (unsigned char) (0x80 | opcode), (unsigned char) (0x80 | length), 0, 0, 0, 0 };
  memcpy(frame + 6, payload, length);
  return write(client->fd, frame, length + 6) == (ssize_t) (length + 6) ? 0 : -1;
}

static const unsigned char *number (const unsigned char *at, const unsigned char *end, uint64_t *value) {
  uint64_t sum = 0;
  while (at < end && *at >= '0' && *at <= '9') sum = sum * 10 + (uint64_t) (*at++ - '0');
  *value = sum;
  return at + 1; // behind the space
}

// A message of a group: `<group> <number> <sent at, in microseconds> <filler>`.
static void count_message (struct client *client, const unsigned char *at, size_t length, int64_t now) {
  const unsigned char *end = at + length;
  uint64_t group, n, sent_at;
  at = number(at, end, &group);
  at = number(at, end, &n);
  number(at, end, &sent_at);
  if (group != client->group) {
    totals.misled++;
    return;
  }
  if (n > client->last) {
    uint64_t step = n - client->last;
    client->seen = (step < 64 ? client->seen << step : 0) | 1;
    client->last = n;
  } else {
    uint64_t back = client->last - n;
    if (back >= 64 || (client->seen >> back & 1) == 1) {
      totals.doubled++;
      return;
    }
    client->seen |= (uint64_t) 1 << back;
    totals.out_of_order++;
  }
  totals.delivered++;
  if (window_start == 0 || window_end != 0) return;
  totals.window_delivered++;
  totals.window_bytes += length;
  histogram_add(&ages, now - (int64_t) sent_at);
}

static void handle_payload (struct client *client, const unsigned char *payload, size_t length, int64_t now) {
  if (length > 0 && *payload == 'j') client->state = JOINED; // the server says `joined`
  else count_message(client, payload, length, now);
}

static int handle_socketio (struct client *client, const unsigned char *packet, size_t length, int64_t now) {
  if (length == 0) return 0;
  if (packet[0] == '0') return send_frame(client, 1, (const unsigned char *) "40", 2);
  if (packet[0] == '2') return send_frame(client, 1, (const unsigned char *) "3", 1);
  if (length < 2 || packet[0] != '4' || packet[1] != '2') return 0; // also 45, which announces a binary frame
  const unsigned char *comma = memchr(packet, ',', length); // 42["text","<payload>"]
  if (comma != NULL && comma + 4 <= packet + length) handle_payload(client, comma + 2, (size_t) (packet + length - comma - 4), now);
  return 0;
}

static int handle_frame (struct client *client, int opcode, const unsigned char *payload, size_t length, int64_t now) {
  switch (opcode) {
    case 1:
      if (client->socketio) return handle_socketio(client, payload, length, now);
      // fall through
    case 2:
      handle_payload(client, payload, length, now);
      return 0;
    case 9:
      return length <= 125 ? send_frame(client, 10, payload, length) : -1;
    case 10:
      return 0;
    default:
      return -1; // a close, or a fragment, which no server here sends
  }
}

// Returns how many bytes were used up, or -1.
static ssize_t handle_bytes (struct client *client, const unsigned char *bytes, size_t length, int64_t now) {
  size_t at = 0;
  while (length - at >= 2) {
    const unsigned char *frame = bytes + at;
    size_t payload = frame[1] & 0x7f, header = 2;
    if (payload == 126) {
      if (length - at < 4) break;
      payload = (size_t) frame[2] << 8 | frame[3];
      header = 4;
    } else if (payload == 127) {
      if (length - at < 10) break;
      payload = 0;
      for (int i = 2; i < 10; i++) payload = payload << 8 | frame[i];
      header = 10;
    }
    if (payload > LARGEST_FRAME - 16 || (frame[0] & 0x70) != 0 || (frame[1] & 0x80) != 0) return -1;
    if (length - at < header + payload) break;
    if (handle_frame(client, frame[0] & 0x0f, frame + header, payload, now) < 0) return -1;
    at += header + payload;
  }
  return (ssize_t) at;
}

static int keep_rest (struct client *client, const unsigned char *bytes, size_t length) {
  if (length > client->rest_capacity) {
    uint32_t capacity = client->rest_capacity == 0 ? 512 : client->rest_capacity;
    while (capacity < length) capacity *= 2;
    unsigned char *rest = realloc(client->rest, capacity);
    if (rest == NULL) return -1;
    client->rest = rest;
    client->rest_capacity = capacity;
  }
  memcpy(client->rest, bytes, length);
  client->rest_length = (uint32_t) length;
  return 0;
}

int client_readable (struct client *client) {
  if (client->state == CONNECTING) return request_upgrade(client);
  size_t length = client->rest_length;
  if (length > 0) memcpy(buffer, client->rest, length);
  ssize_t got = read(client->fd, buffer + length, READ_SIZE);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (got <= 0) return -1;
  if (window_start != 0 && window_end == 0) totals.window_reads++;
  length += (size_t) got;
  unsigned char *bytes = buffer;
  if (client->state == UPGRADING) {
    unsigned char *end = memmem(buffer, length, "\r\n\r\n", 4);
    if (end == NULL) return keep_rest(client, buffer, length);
    if (length < 12 || memcmp(buffer + 8, " 101", 4) != 0) return -1;
    client->state = JOINING;
    bytes = end + 4;
    length -= (size_t) (bytes - buffer);
  }
  ssize_t used = handle_bytes(client, bytes, length, now_us());
  return used < 0 ? -1 : keep_rest(client, bytes + used, length - (size_t) used);
}
