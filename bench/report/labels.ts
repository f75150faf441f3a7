import type { Name } from '../systems/system.ts'

interface Look { readonly label: string, readonly color: string, readonly dash?: string }

/** How each system looks in all plots: ours in front, what belongs together in one hue. */
export const looks: Readonly<Record<Name, Look>> = {
  ours: { label: 'this package', color: '#c2185b' },
  'ours-before': { label: 'this package, before', color: '#7b1fa2' },
  'ours-volatile': { label: 'this package, log: false', color: '#c2185b', dash: '5 3' },
  'ours-interval': { label: 'this package, flushIntervalMs: 10', color: '#c2185b', dash: '1.5 2.5' },
  'ours-heartbeat': { label: 'this package, a ping each second', color: '#c2185b', dash: '1.5 2.5' },
  'ours-users': { label: 'this package, users', color: '#ad1457' },
  'ours-users-volatile': { label: 'this package, users, userLog: false', color: '#ad1457', dash: '5 3' },
  'ours-observed': { label: 'this package, observed', color: '#ad1457', dash: '5 3' },
  'ours-unqueued': { label: 'this package, traces without a queue', color: '#ad1457', dash: '1.5 2.5' },
  'ours-sdk': { label: 'this package, spans of the application', color: '#7b1fa2', dash: '5 3' },
  socketio: { label: 'socket.io', color: '#1565c0' },
  'socketio-sharded': { label: 'socket.io, sharded', color: '#1565c0', dash: '5 3' },
  'socketio-streams': { label: 'socket.io, streams', color: '#1565c0', dash: '1.5 2.5' },
  mqemitter: { label: 'mqemitter-redis', color: '#2e7d32' },
  'ws-loop': { label: 'ws, send in a loop', color: '#558b2f', dash: '5 3' },
  bare: { label: '@fastify/websocket alone', color: '#757575' },
  bun: { label: 'Bun, native', color: '#e65100' },
  floor: { label: 'floor: write() in C', color: '#424242', dash: '1.5 2.5' }
}
