/** URL of the Redis that joins the processes: start.ts sets it. */
export const redisUrl = process.env.REDIS_URL ?? 'redis://127.0.0.1:6379'
