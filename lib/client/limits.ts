// The numbers that the client goes by. This file imports nothing: a bundler then writes each number where it is used.

/** A longer timer would fire at once: every JavaScript engine keeps the delay in 32 bits. */
export const maxTimerMs = 2_147_483_647

/** How long a connection may be quiet when the server does not say how often it pings. */
export const defaultIdleMs = 25_000
export const maxPongMs = 4_000
/** The largest factor by which a connection gets more time than the first one. */
export const maxPatience = 32

/** After a connection that held for this long, the back-off starts again. */
export const stableMs = 5_000
export const minBackoffMs = 1_000
/** Keeps a server that is out for long from being dialled by all its clients at once. */
export const maxBackoffMs = 10_000
/** So many connections without a welcome show that the server speaks another protocol. A single one may have been cut off. */
export const maxUnwelcomed = 3

/** A token is refreshed after four fifths of its time, but no earlier than this before its end. */
export const maxLeadMs = 30_000
export const minRefreshMs = 1_000

/** How many requests may be on the wire without an answer. A long queue that is sent at once would overflow the server's (1008). */
export const maxWindow = 100
/** How often a message is sent at most: one that breaks the connection each time must not do so forever. */
export const maxSends = 5

/** How many of its latest positions a group remembers. */
export const maxRecent = 128
/** How many of the latest messages to several groups are remembered. */
export const maxCopies = 1_000
