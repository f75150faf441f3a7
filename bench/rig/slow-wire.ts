// The way to Redis, in a process of its own, as it has to be punctual: slow-wire.ts <port of Redis>
import { startProxy } from '../../test/helpers/tcp-proxy.ts'
import { expose } from './child.ts'

const wire = await startProxy({ teardown () {} }, Number(process.argv[2]))
const api = {
  url: () => wire.url,
  limit: (bytesPerSecond: number, shared: boolean, turnBytes?: number) => wire.limit(bytesPerSecond, shared, turnBytes),
  refuse: async (on: boolean) => await wire.refuse(on)
}
export type SlowWireApi = typeof api
expose(api)
