import type { Test } from 'tap'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { freePort } from '../helpers/ports.ts'
import { until } from '../helpers/until.ts'

// Debian keeps it where the PATH of ordinary users does not lead.
const nginx = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin'].map(
  folder => join(folder, 'nginx')
).find(isProgram)

function isProgram (file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

// nginx belongs to a shell that waits for the end of its standard input: it goes when this process goes, however it goes.
const owner = '"$0" "$@" </dev/null & p=$!; trap "kill $p" TERM INT HUP; cat >/dev/null; kill $p; wait $p'

/** nginx with the very file of the example, only on other ports. Resolves with its URL. */
export async function startNginx (t: Test, upstreams: readonly [number, number]): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'nginx-'))
  const port = await freePort()
  const given = readFileSync(new URL('../../example-app/nginx.conf', import.meta.url), 'utf8')
  const adapted = given
    .replace('listen 8000;', `listen 127.0.0.1:${port};`)
    .replace('127.0.0.1:8080', `127.0.0.1:${upstreams[0]}`)
    .replace('127.0.0.1:8081', `127.0.0.1:${upstreams[1]}`)
  t.not(adapted, given)
  writeFileSync(join(folder, 'nginx.conf'), adapted)

  const child = spawn(
    'sh', ['-c', owner, nginx ?? '', '-e', 'stderr', '-p', folder, '-c', join(folder, 'nginx.conf'), '-g', 'daemon off;'],
    { stdio: ['pipe', 'ignore', 'pipe'] }
  )
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => { stderr += chunk })
  const ended = once(child, 'close')
  t.teardown(async () => {
    child.stdin.end()
    await ended
    rmSync(folder, { recursive: true })
    if (/\[(emerg|alert|crit)\]/.test(stderr)) throw new Error(`nginx complains: ${stderr}`)
  })
  const url = `http://127.0.0.1:${port}`
  await until(async () => (await fetch(`${url}/healthz`)).ok, { what: 'nginx to answer' }).catch((error: unknown) => {
    throw new Error(`nginx did not start: ${stderr}`, { cause: error })
  })
  return url
}

export const noNginx = { skip: nginx === undefined && 'nginx is not installed (Debian: apt-get install nginx-light)' }
