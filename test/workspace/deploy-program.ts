import cluster, { type Worker } from 'node:cluster'
import { Instances } from '../../example-app/workspace/instances.ts'

// Replaces both instances of the workspace, of which one gets a signal as the deploy begins: `deploy-program.ts <which> <signal>`.

const [, , which, signal] = process.argv
const living = (): Worker[] => Object.values(cluster.workers ?? {}).filter(instance => instance?.isDead() === false) as Worker[]

const instances = new Instances(process.env, signal === 'SIGSTOP' ? 500 : undefined)
await instances.start(2)
const victim = living()[Number(which)] as Worker
const replaced = instances.replace()
victim.process.kill(signal as NodeJS.Signals)
await replaced
console.log('replaced', living().length, living().includes(victim))
await instances.close()
console.log('closed', living().length)
