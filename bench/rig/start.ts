import type { Name } from '../systems/system.ts'
import { FloorRig } from './floor-rig.ts'
import type { Rig, RigOptions } from './rig.ts'
import { SystemRig } from './system-rig.ts'

export async function startRig (name: Name, options: RigOptions = {}): Promise<Rig> {
  return name === 'floor' ? await FloorRig.start() : await SystemRig.start(name, options)
}
