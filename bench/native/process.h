// What the native programs share: time, CPU, and the number of files that they may open.
#ifndef PROCESS_H
#define PROCESS_H

#include <stdint.h>
#include <sys/resource.h>
#include <time.h>

// Microseconds of CLOCK_MONOTONIC, which is what process.hrtime() of Node.js reads, too.
static inline int64_t now_us (void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t) time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

// Microseconds of CPU that this process has used.
static inline int64_t cpu_us (void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return ((int64_t) usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

// As many sockets as the system lets this process have.
static inline void raise_file_limit (void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

#endif
