/** Path of a redis-server (or valkey-server) that starts. Throws one sentence that names the ways to get one. */
export function redisBinary (): string
