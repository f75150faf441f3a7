import cluster from 'node:cluster'
import { Instances } from '../../example-app/workspace/instances.ts'

// Replaces the instances of the workspace, of which one dies meanwhile.
const instances = new Instances(process.env)
await instances.start(2)
const [first] = Object.values(cluster.workers ?? {})
const replaced = instances.replace()
first?.process.kill('SIGKILL')
await replaced
console.log('replaced', Object.keys(cluster.workers ?? {}).includes(String(first?.id)))
await instances.close()
console.log('closed', Object.keys(cluster.workers ?? {}).length)
