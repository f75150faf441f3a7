// One WebSocket client: opens, understands what comes, and checks it.
#ifndef CLIENT_H
#define CLIENT_H

#include <stddef.h>
#include <stdint.h>
#include "histogram.h"

enum state { WAITING, CONNECTING, UPGRADING, JOINING, JOINED, CLOSED };

struct client {
  int fd;
  enum state state;
  uint8_t socketio;          // speaks engine.io and socket.io over the WebSocket
  uint8_t slow;              // stops reading once it is in its group
  uint16_t port;
  uint32_t group;
  uint64_t last;             // the highest number that came
  uint64_t seen;             // which of the 64 numbers up to `last` came: bit 0 is `last`
  unsigned char *rest;       // the beginning of a frame whose end has not come
  uint32_t rest_length;
  uint32_t rest_capacity;
};

// What all clients got.
struct totals {
  uint64_t delivered;        // each message once
  uint64_t doubled;
  uint64_t out_of_order;     // came after one with a higher number
  uint64_t misled;           // were for another group
  uint64_t broken;           // connections that ended by themselves
  uint64_t slow_broken;      // and those of clients that do not read
  uint64_t window_delivered; // from `start` to `mark`
  uint64_t window_bytes;
  uint64_t window_reads;
};

extern struct totals totals;
extern struct histogram ages;     // at arrival, from `start` to `mark`
extern int64_t window_start;      // 0: not yet
extern int64_t window_end;        // 0: not yet
extern char path_template[512];   // with a %u for the number of the group

// Both return 0, or -1 when the client is of no more use.
int client_connect (struct client *client);
int client_readable (struct client *client);

#endif
