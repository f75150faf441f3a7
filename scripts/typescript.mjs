// Lets node run the TypeScript of this repository without a compiler in every process:
//
//   node --import ./scripts/typescript.mjs test/unit/hub/hub.test.ts
//
// The tests start hundreds of processes. ts-node, which tap brings along, costs each of them about 1.7 s of CPU time;
// this costs 0.1 s, because only the first process that meets a file transpiles the file. `npm run coverage` needs
// ts-node's source maps, so there this module does nothing.
import module from 'node:module'
import { load } from './typescript-hooks.mjs'

if (process.env._TAPJS_PROCESSINFO_COVERAGE_ !== '1') {
  if (module.registerHooks) module.registerHooks({ load })
  else module.register('./typescript-hooks.mjs', import.meta.url) // Node 20
}
